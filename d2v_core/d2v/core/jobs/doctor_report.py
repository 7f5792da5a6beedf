"""The report of `d2v doctor`: facts, and checks with their outcomes."""

from collections.abc import Mapping

from attrs import frozen


class DoctorError(RuntimeError):
    """A check failed; the message names the failed checks."""


@frozen(kw_only=True)
class DoctorReport:
    """Report of `doctor`.

    Args:
        facts: name and text of each fact on the environment.
        checks: name and outcome of each check: None = passed, else the reason of the failure.
    """

    facts: Mapping[str, str]
    checks: Mapping[str, str | None]

    @property
    def failed(self) -> list[str]:
        """Names of the checks that failed."""
        return [name for name, reason in self.checks.items() if reason is not None]

    def lines(self) -> list[str]:
        """The report, one line for each fact and each check.

        >>> DoctorReport(facts={"d2v": "0.1"}, checks={"masks": None, "step": "no memory"}).lines()
        ['d2v               0.1', 'masks             ok', 'step              FAILED: no memory']
        """
        outcomes = {name: "ok" if reason is None else f"FAILED: {reason}" for name, reason in self.checks.items()}
        return [f"{name:<17} {text}" for name, text in (*self.facts.items(), *outcomes.items())]

    def require(self) -> None:
        """Raise if a check failed.

        Raises:
            DoctorError: naming the checks that failed.
        """
        if self.failed:
            raise DoctorError(f"{len(self.failed)} of {len(self.checks)} checks failed: {', '.join(self.failed)}")
