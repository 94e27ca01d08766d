"""Puts the commands together and turns known errors into sentences and exit codes."""

import sys

import typer

from cam_core.errors import CamCoreError
from dicom_node import __version__
from dicom_node.cli import audit, explain, methods, models, running, setup
from dicom_node.cli.printing import errors_to
from dicom_node.errors import ConfigurationError, DicomNodeError
from storage.errors import StorageError

application = typer.Typer(
    name="camnode",
    help="A DICOM node that explains classifiers: overlays and structured reports in the PACS.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
application.command("init")(setup.init)
application.command("check")(setup.check)
application.command("run")(running.run)
application.command("status")(running.status)
application.command("replay")(running.replay)
application.command("explain")(explain.explain)
application.command("methods")(methods.methods)
application.add_typer(audit.commands, name="audit")
application.add_typer(models.commands, name="models")


@application.command("version")
def version() -> None:
    """Print the version."""
    print(__version__)


def main() -> None:
    """The entry point: exit code 0 done, 1 something is wrong, 2 wrong usage."""
    try:
        application()
    except ConfigurationError as error:
        errors_to(sys.stderr, "The configuration can't be used:", error.problems)
        sys.exit(1)
    except (DicomNodeError, CamCoreError, StorageError) as error:
        errors_to(sys.stderr, str(error), ())
        sys.exit(1)
