"""Forms in which `d2v convert` writes models, by name: core's own and those of the model's modality."""

from d2v.core.exports.forms import export_folder, form_of, forms_for

__all__ = ["export_folder", "form_of", "forms_for"]
