"""SDN's two objectives: compare a student's tensors with its teacher's, tap by tap.

Stage I, `mirrored`: L_I = sum_l w_l d(phi_l(x), g_l(t)), with g_l the student's own tensor of the tap's name.
Stage II, `perceptual`: L_II = sum_l w_l d(phi_l(x), phi_l(G(t))), with the teacher's taps of the generated image.
x is a real image, t its caption, phi the teacher, d the mean over all elements of an error.

Source: Yuan & Peng (ACM MM 2018) and the authors' code, where d is the absolute error and every w_l is 1. The other
errors and the normalised weights are ours.

Normalised taps are divided by their typical size s_l, in which raw VGG19 maps differ a thousandfold. In a normalised
Stage I the student's tensors stand for phi_l(x) / s_l themselves: a generator whose layers keep the variance starts
at that size, and would first have to learn the teacher's units. Only its image keeps 0-255.
"""

OBJECTIVES = ("mirrored", "perceptual")
