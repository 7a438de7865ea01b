package t2i_kd

import android.graphics.Bitmap
import java.io.File
import kotlin.math.PI
import kotlin.math.cos
import kotlin.math.ln
import kotlin.math.sin
import kotlin.math.sqrt
import org.json.JSONObject
import org.tensorflow.lite.Interpreter

/** Captions to token ids; the rules are in the docstring of t2i_kd/text/tokenizer.py. They work on bytes, here Latin-1. */
class Tokenizer(vocabulary: ByteArray, private val kind: String, private val length: Int) {
    private val ids = String(vocabulary, Charsets.ISO_8859_1).split("\n").dropLast(1)
        .withIndex().drop(2).associate { it.value to it.index }

    fun ids(caption: String): IntArray {
        val bytes = String(caption.toByteArray(Charsets.UTF_8), Charsets.ISO_8859_1)
        val text = bytes.map { if (it in 'A'..'Z') it + 32 else it }.joinToString("")
        val tokens =
            if (kind == "words") WORD.findAll(text).map { it.value }.toList() else text.map { it.toString() }
        return IntArray(length) { if (it < tokens.size) ids[tokens[it]] ?: 1 else 0 }
    }

    private companion object {
        val WORD = Regex("[a-z0-9'\\u0080-\\u00ff]+")
    }
}

/** The noise of a seed; the rules are in the docstring of t2i_kd/noise.py. */
fun noise(seed: Long, dim: Int): FloatArray {
    fun mix(word: Int): Int {
        val first = (word xor (word ushr 16)) * 0x85EBCA6B.toInt()
        val second = (first xor (first ushr 13)) * 0xC2B2AE35.toInt()
        return second xor (second ushr 16)
    }
    fun word(index: Int): Int {
        val start = mix((index + 1) * 0x9E3779B9.toInt())
        return mix(mix(start xor seed.toInt()) xor (seed shr 32).toInt()) ushr 8
    }
    return FloatArray(dim) {
        val radius = sqrt(-2 * ln((word(it - it % 2) + 1) / 16777216.0))
        val angle = 2 * PI * (word(it - it % 2 + 1) / 16777216.0)
        (radius * if (it % 2 == 0) cos(angle) else sin(angle)).toFloat()
    }
}

/** A `.tflite` of an export. [folder] holds it with its manifest.json and vocabulary.txt; not for several threads at once. */
class Student(folder: File, model: String = "student_int8.tflite", threads: Int = 2) : AutoCloseable {
    private val manifest = JSONObject(File(folder, "manifest.json").readText())
    private val resolution = manifest.getInt("resolution")
    private val noiseDim = manifest.getInt("noise_dim")
    private val condition = manifest.getJSONObject("condition")
    private val tokenizer = Tokenizer(
        File(folder, "vocabulary.txt").readBytes(), condition.getString("tokenizer"), condition.getInt("length")
    )
    private val interpreter = Interpreter(File(folder, model), Interpreter.Options().setNumThreads(threads))

    /** Draws a caption; the seed counts only where the student takes noise. Takes milliseconds: not on the main thread. */
    fun draw(caption: String, seed: Long = 0): Bitmap {
        val inputs = mutableMapOf<String, Any>("tokens" to arrayOf(tokenizer.ids(caption)))
        if (noiseDim > 0) inputs["noise"] = arrayOf(noise(seed, noiseDim))
        val image = Array(1) { Array(resolution) { Array(resolution) { FloatArray(3) } } }
        interpreter.runSignature(inputs, mapOf<String, Any>("image" to image), "serving_default")
        val pixels = IntArray(resolution * resolution) {
            val (red, green, blue) = image[0][it / resolution][it % resolution].map { c -> Math.rint(c.toDouble()).toInt() }
            (255 shl 24) or (red.coerceIn(0, 255) shl 16) or (green.coerceIn(0, 255) shl 8) or blue.coerceIn(0, 255)
        }
        return Bitmap.createBitmap(pixels, resolution, resolution, Bitmap.Config.ARGB_8888)
    }

    override fun close() = interpreter.close()
}
