"""Workflow factories, a file per stage; base ties them together.

These are for use in other pipelines. Their names, arguments and the fields of ``inputnode`` and
``outputnode`` change with the minor version at most, and then ``CHANGES.md`` says so.

- :func:`~tumorreg_wf.workflows.conform.init_conform_wf`: images checked, the brain found
- :func:`~tumorreg_wf.workflows.coregistration.init_coregistration_wf`: FLAIR to T1w
- :func:`~tumorreg_wf.workflows.bias.init_bias_correction_wf`: N4
- :func:`~tumorreg_wf.workflows.intensity.init_intensity_wf`: grey values for the segmentation
- :func:`~tumorreg_wf.workflows.segmentation.init_segmentation_wf`: the tumour found
- :func:`~tumorreg_wf.workflows.inpainting.init_inpainting_wf`: the tumour replaced
- :func:`~tumorreg_wf.workflows.tissues.init_tissues_wf`: tissues found without a template
- :func:`~tumorreg_wf.workflows.registration.init_registration_wf`: the template registered
- :func:`~tumorreg_wf.workflows.atlas.init_atlas_wf`: tissues, labels and tables
- :func:`~tumorreg_wf.workflows.outputs.init_derivatives_wf`: BIDS derivatives
- :func:`~tumorreg_wf.workflows.reports.init_reportlets_wf`: figures of the report
- :func:`~tumorreg_wf.workflows.base.init_tumorreg_wf`: all of them, for a whole run
"""
