"""Nipype's stock ANTs interfaces, run by native ANTs or by the ANTs inside antspyx."""

from __future__ import annotations

import shlex
import shutil
import sys

from nipype.interfaces import ants

from tumorreg_wf.interfaces.commands import CheckedCommand


class EmbeddedANTs(CheckedCommand):
    """The native program where it is on PATH, else antspyx's of the same name."""

    @property
    def cmd(self) -> str:
        """The program, with the interpreter before it where it is embedded."""
        if shutil.which(self._cmd):
            return self._cmd
        return f'{shlex.quote(sys.executable)} -m tumorreg_wf.ants_program {self._cmd}'


class N4BiasFieldCorrection(EmbeddedANTs, ants.N4BiasFieldCorrection):
    """:class:`nipype.interfaces.ants.N4BiasFieldCorrection`."""


class Registration(EmbeddedANTs, ants.Registration):
    """:class:`nipype.interfaces.ants.Registration`."""


class ApplyTransforms(EmbeddedANTs, ants.ApplyTransforms):
    """:class:`nipype.interfaces.ants.ApplyTransforms`."""


class JacobianDeterminant(EmbeddedANTs, ants.CreateJacobianDeterminantImage):
    """:class:`nipype.interfaces.ants.CreateJacobianDeterminantImage`."""
