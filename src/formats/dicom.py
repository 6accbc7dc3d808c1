"""DICOM, which is not read here: what to type instead."""

DICOM = (
    "DICOM, which is not read. This makes PNGs of 16 bits of all below a folder, after pip install pydicom:\n"
    '  python -c "import pathlib, numpy, pydicom, PIL.Image; from pydicom.pixels import apply_modality_lut as lut; '
    "[PIL.Image.fromarray(numpy.clip(lut(d.pixel_array, d) + 1024, 0, 65535).astype('uint16'))"
    ".save(p.with_suffix('.png')) for p in pathlib.Path('{folder}').rglob('*.dcm') for d in [pydicom.dcmread(p)]]\""
)
