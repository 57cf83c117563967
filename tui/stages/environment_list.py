"""The list of env profiles: which are shown, and what the marked line stands for."""

from __future__ import annotations

from collections.abc import Collection

from textual.widgets import OptionList

from ...core.findings import Finding
from ...core.profiles import ProfileLook, Profiles, made_for
from ..widgets.lists import marked_id, refill
from .environment_rows import FILE_FINDING, profile_options


class ProfileList(OptionList):
    """Profiles under headings, after what is wrong with the files that they are from.

    `profiles` is all there are, None before the files have been read.
    """

    profiles: Profiles | None = None

    def narrow(self, step: str, typed: str, wanted: str | None, width: int) -> bool:
        """Show what fits what is typed, with a profile marked if it is among it.

        Args:
            step: that is launched.
            typed: words that are looked for.
            wanted: the profile to mark.
            width: columns that a line may take.

        Returns:
            Whether anything fits.
        """
        if self.profiles is None:
            return False
        fits = refill(self, profile_options(self.profiles, step, typed, width), wanted)
        # The heading stays in sight above the first line.
        if self.highlighted == 1:
            self.scroll_home(animate=False)
        return fits

    @property
    def names(self) -> list[str]:
        """All profiles, shown or not."""
        return [one.name for one in self.profiles.profiles] if self.profiles else []

    def newest(self, known_before: Collection[str], step: str) -> str | None:
        """The first profile that was not known before, one for the step before others."""
        names = [name for name in self.names if name not in known_before]
        return next(iter([*made_for(names, step), *names]), None)

    def profile_named(self, name: str | None) -> ProfileLook | None:
        """A profile, shown or not; None where there is none of that name."""
        known = self.profiles.profiles if self.profiles else ()
        return next((profile for profile in known if profile.name == name), None)

    @property
    def marked_profile(self) -> ProfileLook | None:
        """The profile of the marked line; None where that is about a file."""
        return self.profile_named(marked_id(self))

    @property
    def unread(self) -> str | None:
        """The id of the line that says why a file cannot be read; None where all can be."""
        known = self.profiles.findings if self.profiles else ()
        wrong = (number for number, one in enumerate(known) if one.severity == "error")
        return next((f"{FILE_FINDING}{number}" for number in wrong), None)

    @property
    def marked_finding(self) -> Finding | None:
        """The finding about a file that the marked line is."""
        number = (marked_id(self) or "").removeprefix(FILE_FINDING)
        known = self.profiles.findings if self.profiles else ()
        return known[int(number)] if number.isdigit() else None
