"""Nipype interfaces: each a spec and a few lines.

These are for use in other pipelines. Their names, inputs and outputs change with the minor version
at most, and then ``CHANGES.md`` says so. None imports torch.

- :class:`~tumorreg_wf.interfaces.images.Conform`: an image checked, as 3-D float32
- :class:`~tumorreg_wf.interfaces.images.ConformMask`: a mask on the grid of an image
- :class:`~tumorreg_wf.interfaces.images.StrippedBrainMask`: brain mask of a stripped image
- :class:`~tumorreg_wf.interfaces.images.KeepScale`: an image on the scale of another
- :class:`~tumorreg_wf.interfaces.images.CropToMask`: an image cut down to its mask
- :class:`~tumorreg_wf.interfaces.images.NormalizeIntensity`: grey values for the segmentation
- :class:`~tumorreg_wf.interfaces.images.DilateMask`: a mask grown in millimetres
- :class:`~tumorreg_wf.interfaces.images.InvertMask`: all but a mask
- :class:`~tumorreg_wf.interfaces.torch.ExtractBrain`: the brain in a whole head
- :class:`~tumorreg_wf.interfaces.torch.SegmentTumor`: the tumour found
- :class:`~tumorreg_wf.interfaces.torch.InpaintTumor`: the tumour replaced
- :class:`~tumorreg_wf.interfaces.torch.FindTissues`: maps of GM, WM and CSF
- :class:`~tumorreg_wf.interfaces.ants.N4BiasFieldCorrection`,
  :class:`~tumorreg_wf.interfaces.ants.Registration`,
  :class:`~tumorreg_wf.interfaces.ants.ApplyTransforms`,
  :class:`~tumorreg_wf.interfaces.ants.JacobianDeterminant`: stock ANTs nodes that need no ANTs
- :class:`~tumorreg_wf.interfaces.ants.EmbeddedANTs`: base class that does the same to any other
- :class:`~tumorreg_wf.interfaces.greedy.GreedyRegistration`: registration by greedy
- :class:`~tumorreg_wf.interfaces.labels.CombineTissues`: those found, under the tumour the atlas's
- :class:`~tumorreg_wf.interfaces.labels.LabelTissues`: tissues, with the tumour and without
- :class:`~tumorreg_wf.interfaces.labels.TumorTables`: tables of tumour and regions
- :class:`~tumorreg_wf.interfaces.quality.MeasureQuality`: how well it went
- :class:`~tumorreg_wf.interfaces.bids.DerivativesDataSink`: a file under its BIDS name
- :class:`~tumorreg_wf.interfaces.reports.PlotSlices`,
  :class:`~tumorreg_wf.interfaces.fragments.Summary`,
  :class:`~tumorreg_wf.interfaces.fragments.RegionsTable`,
  :class:`~tumorreg_wf.interfaces.fragments.Provenance`: parts of a report
"""
