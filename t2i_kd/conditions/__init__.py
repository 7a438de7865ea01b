"""What a student is asked with: a caption or an image.

A condition turns requests into the student's inputs, outside a graph and inside one, checks them, and is described by
`condition.json`. Whatever exports, serves or runs a student knows its requests from here alone.
"""
