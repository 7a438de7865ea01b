"""How every benchmark starts: with flags of its own, and those of a recipe where it takes one."""

from absl import flags

from t2i_kd import commands, recipe_flags

# Flags of `t2i_kd.train` alone, which a recipe's flagfile may name.
IGNORED = ("system", "run_dir", "export_dir")


def run(main, define, description, recipe=None):
    """`t2i_kd.commands.run` of a benchmark.

    Args:
        main: function without arguments.
        define: function without arguments that defines the benchmark's flags.
        description: a text, for `--help`.
        recipe: the `Recipe` class whose options are flags too; None: no recipe's.
    """

    def define_flags(arguments):
        groups = {"Measuring": commands.defining(define)}
        if recipe is not None:
            groups["The recipe"] = commands.defining(recipe_flags.define_flags, recipe)
            for name in IGNORED:
                flags.DEFINE_string(name, "", "Not used: a flagfile may name it.")
        return groups

    commands.run(main, define_flags, description)
