"""Samples in the files of other programs: `read_samples` takes any of them, `export_samples` writes them.

One module a format; each reads into and writes from `align.evaluate.samples.SampleTable`. What a format has no place for is lost
on writing, and `Export.lost` says what that was.
"""

from align.evaluate.formats.choice import ReadChoice
from align.evaluate.formats.export import FORMATS, Export, FormatName, export_samples
from align.evaluate.formats.read import evaluations_in, read_samples

__all__ = ["FORMATS", "Export", "FormatName", "ReadChoice", "evaluations_in", "export_samples", "read_samples"]
