package org.json

/** Finds values by their name, wherever in the text they stand; the manifest's names are unique where they are asked for. */
class JSONObject(private val text: String) {
    private fun find(name: String, value: String) =
        checkNotNull(Regex("\"$name\": $value").find(text)) { name }.groupValues[1]

    fun getInt(name: String) = find(name, "(-?\\d+)").toInt()

    fun getString(name: String) = find(name, "\"([^\"]*)\"")

    fun getJSONObject(name: String) = JSONObject(find(name, "(\\{[^{}]*\\})"))
}
