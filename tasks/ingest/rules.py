"""The rules of intake in words: what each one saw, and what to do. One place for the terminal and for readers of it."""

from __future__ import annotations

AGAIN = "Send it again, whole; ask its sender when it stays so."
SENDER = "Ask its sender: the scanner or the export wrote it so."
NONE = "Nothing; it is no exam."
HOSTILE = "Treat it as hostile, or raise the limit."

# Rule → what it means, what to do.
RULES: dict[str, tuple[str, str]] = {
    "admitted": ("taken in as an exam", "Nothing."),
    "known": ("admitted before; the same voxels again", "Nothing."),
    "changed_after_admission": ("an admitted series came with other voxels or another grid; the exam stays as it was",
                                "Find out why it changed; labels may exist on the old grid."),
    # -- no exams -----------------------------------------------------------------------------------------------------
    "not_an_image": ("a file that lies beside images (DICOMDIR, checksums, hidden files)", NONE),
    "not_dicom": ("neither DICOM nor NIfTI", NONE),
    "segmentation_object": ("a SEG or RTSTRUCT: truth or labels, not an image", NONE),
    "localizer": ("a scout image for planning", NONE),
    "colour": ("an image in colour holds no intensities", NONE),
    "label_not_an_image": ("a NIfTI label in a label folder, with its image", NONE),
    "label_without_image": ("a NIfTI label whose image is not there", "Look for the image."),
    "label_on_another_grid": ("a NIfTI label that does not lie on its image's grid", "Export it on the image's grid."),
    # -- not wanted ---------------------------------------------------------------------------------------------------
    "not_selected": ("the source's `wanted` does not ask for it", "Nothing, or widen `wanted`."),
    "modality_not_wanted": ("the project does not take this modality", "Nothing, or extend `ingest.modalities`."),
    "modality_unknown": ("a NIfTI file does not say its modality, and the project takes several",
                         "Use a project of one modality."),
    "derived_secondary": ("an image made from others (DERIVED\\SECONDARY)",
                          "Nothing, or set `ingest.accept_secondary` where such images are the exams."),
    "mixed_classes": ("one series mixes kinds of objects", SENDER),
    # -- quarantined: originals in the vault --------------------------------------------------------------------------
    "class_not_supported": ("objects of a kind that is not read, and that may show a name", "Nothing; see the vault."),
    "modality_quarantined": ("a modality whose pixels may carry text (`deid.quarantine_modalities`)", "See the vault."),
    "modality_with_text": ("a modality whose pixels may carry text (`deid.quarantine_modalities`)", "See the vault."),
    "burned_in_annotation": ("does not say that no text is burned into its pixels", "Look at it before it is used."),
    "recognizable_visual_features": ("says that a face can be recognised, or does not deny it", "Deface it first."),
    "screen_capture": ("a picture of a screen", "Nothing; see the vault."),
    "secondary_capture": ("a secondary capture", "Nothing; see the vault."),
    "encapsulated_document": ("a document, not an image", "Nothing; see the vault."),
    "converted_from_picture": ("made from film, paper or video", "Look at it before it is used."),
    "identifier_in_pixels": ("its pixel data spell an identifier of its own patient", "Look at it before it is used."),
    # -- files --------------------------------------------------------------------------------------------------------
    "truncated": ("a file ends before what it announces", AGAIN),
    "malformed": ("a file's structure contradicts itself", AGAIN),
    "unreadable": ("a file cannot be read as what it claims to be", AGAIN),
    "undecodable": ("pixels cannot be decoded; the receipt names the transfer syntax", AGAIN),
    "no_pixels": ("a file of the series has no pixels", AGAIN),
    "no_size": ("a file declares no rows or columns", SENDER),
    "size": ("pixels are not of the declared size", AGAIN),
    "too_large": ("declares more voxels than `ingest.max_voxels`", "Raise it if the exam is real."),
    "inflated_size": ("deflated data unpack to more than they announce", "Treat it as hostile."),
    "nesting": ("sequences within sequences beyond `ingest.limits.nesting`", HOSTILE),
    "elements": ("more data elements than `ingest.limits.elements`", HOSTILE),
    "rescale": ("rescale slope or intercept is no number", SENDER),
    "modality_lut": ("values are mapped by a table, which is not read", "Export it with slope and intercept."),
    "not_single_frame": ("an object of a single-frame class holds several frames", SENDER),
    "frames_differ": ("a multi-frame object's groups do not fit its frames", SENDER),
    "no_instance": ("an object names no class or no instance", SENDER),
    "missing_series_uid": ("names no series, so nobody can say what belongs to it",
                           "Export it with UIDs, or set `ingest.nameless_series: by_folder`."),
    "folder_not_whole": ("a file beside it cannot be read, and may be one of its slices",
                         "Mend or remove that file (it has a receipt of its own), then run `redraft ingest` again."),
    "mixed_series": ("files of several series were offered as one", AGAIN),
    "no_files": ("the series has no files any more", AGAIN),
    "read_twice": ("the pixels were asked for twice", "Report it: this is a defect."),
    # -- geometry -----------------------------------------------------------------------------------------------------
    "missing_position": ("slices have no position", SENDER),
    "missing_orientation": ("slices have no orientation", SENDER),
    "missing_spacing": ("slices have no pixel spacing", SENDER),
    "missing_slices": ("slices are missing inside the series", "Send the series again, whole."),
    "uneven_spacing": ("slices are unevenly spaced, or their steps drift",
                       "Leave it out, or set `ingest.uneven_spacing: resample`."),
    "gantry_tilt": ("the gantry was tilted", "Leave it out, or set `ingest.gantry_tilt: resample`."),
    "shifted_slices": ("a slice lies beside the line of the others", "Leave it out."),
    "single_slice": ("one slice makes no volume", "Nothing."),
    "spacing_too_large": ("slices are further apart than `ingest.max_spacing_mm`", "Raise it if the exam is real."),
    "non_orthonormal": ("row and column directions are not at right angles", SENDER),
    "duplicate_positions": ("several slices lie at one position", AGAIN),
    "conflicting_duplicates": ("slices at one position, or of one name, differ", "Find out which one is right."),
    "several_volumes": ("the series holds several volumes that cannot be told apart cleanly", "Export them apart."),
    "mixed_orientation": ("slices differ in orientation", "Export them apart."),
    "mixed_size": ("slices differ in rows and columns", "Export them apart."),
    "mixed_spacing": ("slices differ in pixel spacing", "Export them apart."),
    "mixed_frame_of_reference": ("slices lie in several frames of reference", "Export them apart."),
    "mixed_patients": ("one series names several patients", "Correct it at its source before anything else."),
    "mixed_studies": ("one series lies in several studies", "Correct it at its source."),
    "mixed_units": ("values of one volume are in several units", "Export them apart."),
    # -- NIfTI --------------------------------------------------------------------------------------------------------
    "dimensions": ("not three-dimensional", "Split it first."),
    "no_voxels": ("holds no voxels", AGAIN),
    "not_finite": ("holds NaN or infinity", "Export it with numbers."),
    "not_scalar": ("holds no real numbers", "Export it as a scalar image."),
    "singular_affine": ("its affine is singular", "Export it with its geometry."),
    "sheared_affine": ("its axes are not at right angles", "Resample it first."),
    "form_conflict": ("q-form and s-form place the voxels differently", "Export it with one of them."),
    "no_orientation": ("neither q-form nor s-form: left and right are unknown", "Export it with its orientation."),
    "units": ("lengths are not in millimetres", "Export it in millimetres."),
    # -- transfer: asked for again by the next intake -----------------------------------------------------------------
    "incomplete_transfer": ("fewer or more instances came than announced", "Run `redraft ingest` again."),
    "foreign_instances": ("instances of another series came", "Report it to the server's administrator."),
    "changed_meanwhile": ("it changed while it was brought", "Run `redraft ingest` again."),
    "checksum": ("the bytes are not those that the server announces", "Run `redraft ingest` again."),
    "not_retrievable": ("the object lies in an archive class", "Restore it in the bucket first."),
    "header_too_large": ("no header ends within 256 MB", NONE),
    "invalid_uid": ("the server names it by what is no UID", "Report it to the server's administrator."),
    # -- the machine: read again by the next intake -------------------------------------------------------------------
    "read_failed": ("the disk did not give a file", "Check the disk, then run `redraft ingest` again."),
    "time_limit": ("reading took longer than `ingest.limits.seconds`", HOSTILE),
    "memory_limit": ("reading took more than `ingest.limits.memory_mb`", HOSTILE),
    "reader_died": ("the process that read it ended", "Treat it as hostile; the next intake tries again."),
    "reader_failed": ("reading it failed in a way nobody foresaw", "Report it with the receipt."),
    # -- archives -----------------------------------------------------------------------------------------------------
    "archive_damaged": ("the archive, or a member, is damaged", AGAIN),
    "archive_encrypted": ("a member is encrypted", "Send it without a password."),
    "archive_method": ("a member is packed in a rare way", "Pack it as a plain zip or tar."),
    "archive_overlap": ("members share their bytes", "Treat it as hostile."),
    "archive_too_large": ("unpacks to more than `ingest.limits.archive_mb`", HOSTILE),
    "archive_not_whole": ("another member of its archive cannot be read: nothing in it is known to be whole", AGAIN),
    "archive_path": ("a member's name leads out of the archive", "Treat it as hostile."),
    "archive_link": ("a member is a link", "Pack the file itself."),
    "archive_device": ("a member is a device", "Treat it as hostile."),
    "archive_duplicate": ("a member's name was met before", AGAIN),
    "archive_nested": ("an archive within an archive", "Unpack it once."),
    "archive_nifti": ("a NIfTI file within an archive: its name and folder would be its identity", "Unpack it."),
}  # fmt: skip


def explain(rule: str) -> tuple[str, str]:
    """What a rule means and what to do; `derived_…` rules name the kind of image that was computed."""
    if rule.startswith("derived_") and rule not in RULES:
        return f"an image computed from another series ({rule.removeprefix('derived_')})", "Nothing."
    if rule.startswith("label_") and rule not in RULES:
        meaning, do = explain(rule.removeprefix("label_"))
        return f"a NIfTI label: {meaning}", do
    return RULES.get(rule, ("a rule of another version of redraft", "See that version's words for it."))
