// What Student.kt needs of Android and LiteRT, just enough to compile and call it on a desktop: the interpreter does not
// run the model but hands its inputs over and fills the image with numbers that say where they lie.

package android.graphics

class Bitmap(val pixels: IntArray) {
    enum class Config { ARGB_8888 }

    companion object {
        fun createBitmap(pixels: IntArray, width: Int, height: Int, config: Config) =
            Bitmap(pixels.also { check(it.size == width * height && config == Config.ARGB_8888) })
    }
}
