package org.json

/** Finds values by their name, wherever in the text they stand; the manifest's names are unique where they are asked for. */
class JSONObject(private val text: String) {
    private fun find(name: String, value: String) =
        checkNotNull(Regex("\"$name\": $value").find(text)) { name }.groupValues[1]

    fun getInt(name: String) = find(name, "(-?\\d+)").toInt()

    fun getString(name: String) = find(name, "\"([^\"]*)\"")

    fun getJSONObject(name: String): JSONObject {
        val start = checkNotNull(Regex("\"$name\": \\{").find(text)) { name }.range.last
        val depths = text.drop(start).runningFold(0) { depth, at -> depth + if (at == '{') 1 else if (at == '}') -1 else 0 }
        return JSONObject(text.substring(start, start + depths.drop(1).indexOf(0) + 1))
    }
}
