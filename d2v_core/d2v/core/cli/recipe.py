"""`d2v recipe`: a recipe with all defaults and descriptions."""

from argparse import Namespace

from d2v.core.cli.arguments import RecipeAndKeys
from d2v.core.cli.command import Command
from d2v.core.jobs.pretraining import check_input
from d2v.core.recipes import PretrainRecipe, as_yaml, checked_values

_TAKES = RecipeAndKeys()


def run(arguments: Namespace) -> None:
    """Print the recipe."""
    given = _TAKES.values(arguments)
    kind, values, recipe = checked_values(given["recipe"], given["overrides"])
    if isinstance(recipe, PretrainRecipe):
        check_input(recipe)
    print(f"# d2v {kind.command} {arguments.recipe} KEY=VALUE ...")
    print(as_yaml(kind, values, comments=True), end="")


COMMAND = Command(
    name="recipe",
    summary="print a recipe with all defaults and a comment on each key",
    details="""Set every value shown as ???. The output is a complete recipe: save it to a YAML file,
change it, and give its path in place of the recipe's name.""",
    example="d2v recipe vision/base\nd2v recipe vision/base optim.lr=5e-4 > mine.yaml",
    add_arguments=_TAKES,
    run=run,
    takes=_TAKES,
)
