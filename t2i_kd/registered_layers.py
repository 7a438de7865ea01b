"""Imports every module of the package that registers a layer, so that Keras can read any student's file."""

import t2i_kd.srpkd.networks
import t2i_kd.teachers.vgg19
import t2i_kd.text.encoders
import t2i_kd.training.mirrored_generator  # noqa: F401
