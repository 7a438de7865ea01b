package org.tensorflow.lite

import java.io.File

/** Keeps its inputs; its image has row, column and 254.5 + channel at every pixel. */
class Interpreter(file: File, options: Options) : AutoCloseable {
    class Options {
        fun setNumThreads(threads: Int) = this.also { check(threads == 2) }
    }

    init {
        check(file.name == "student_int8.tflite")
    }

    fun runSignature(inputs: Map<String, Any>, outputs: Map<String, Any>, signature: String) {
        check(signature == "serving_default" && outputs.keys == setOf("image"))
        last = inputs
        @Suppress("UNCHECKED_CAST")
        val image = outputs["image"] as Array<Array<Array<FloatArray>>>
        image[0].forEachIndexed { y, row ->
            row.forEachIndexed { x, pixel -> floatArrayOf(y + 0.5f, x + 0.25f, 254.5f + x).copyInto(pixel) }
        }
    }

    override fun close() {}

    companion object {
        var last: Map<String, Any> = emptyMap()
    }
}
