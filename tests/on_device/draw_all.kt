import java.io.File
import org.tensorflow.lite.Interpreter
import t2i_kd.Student

/** For each "seed caption" line of standard input prints the token ids and the bits of the noise; then the pixels. */
fun main(arguments: Array<String>) {
    Student(File(arguments[0])).use { student ->
        var pixels = IntArray(0)
        for (line in System.`in`.readBytes().toString(Charsets.UTF_8).split("\u001e")) {
            val (seed, caption) = line.split(" ", limit = 2)
            pixels = student.draw(caption, seed.toLong()).pixels
            val tokens = (Interpreter.last["tokens"] as Array<*>)[0] as IntArray
            val noise = (Interpreter.last["noise"] as Array<*>?)?.get(0) as FloatArray?
            println(tokens.joinToString(" "))
            println(noise?.joinToString(" ").orEmpty())
        }
        println(pixels.joinToString(" "))
    }
}
