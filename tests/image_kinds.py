"""Kinds of image files that decoders disagree about, each with its expected colours.

All show four quarters of one colour each. Those stored rotated need orientation 6.
"""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image, ImageCms, PngImagePlugin

RED, GREEN, BLUE, WHITE = (230, 40, 40), (40, 200, 40), (40, 40, 220), (255, 255, 255)
SIZE = (80, 60)


def quarters(*colours, size=SIZE):
    """Returns an image of four colours: upper left, upper right, lower left, lower right."""
    return Image.fromarray(np.array(colours, np.uint8).reshape(2, 2, -1).squeeze()).resize(
        size, Image.Resampling.NEAREST
    )


UPRIGHT = quarters(RED, GREEN, BLUE, WHITE)
STORED = UPRIGHT.transpose(Image.Transpose.ROTATE_90)


def encode(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **{"quality": 95, **options} if kind == "JPEG" else options)
    return file.getvalue()


def segment(marker, body):
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def tiff(kind=3, value=6):
    """Returns EXIF with an orientation, as a short (3) or long (4) number."""
    number = struct.pack("<HH", value, 0) if kind == 3 else struct.pack("<I", value)
    entry = struct.pack("<HHI", 0x0112, kind, 1) + number
    return b"II" + struct.pack("<HIH", 42, 8, 1) + entry + b"\0\0\0\0"


def xmp(value=6):
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf='
        '"http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description '
        f'xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="{value}"/>'
        "</rdf:RDF></x:xmpmeta>"
    )


def profile(swapped=False):
    """Returns the sRGB profile, or one with red and green swapped and another name."""
    made = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    if swapped:
        count = struct.unpack_from(">I", made, 128)[0]
        entries = {bytes(made[132 + 12 * i : 136 + 12 * i]): 132 + 12 * i for i in range(count)}
        red, green = entries[b"rXYZ"], entries[b"gXYZ"]
        made[red : red + 4], made[green : green + 4] = b"gXYZ", b"rXYZ"
        made = made.replace("sRGB".encode("utf-16-be"), "GRBs".encode("utf-16-be"))
    return bytes(made)


def png(bits, kind, samples, transparent=None, late=b"", early=b""):
    """Returns a PNG of quarters, encoded here because Pillow writes only a few kinds."""
    width, height = SIZE
    rows = b""
    for y in range(height):
        line = [samples[2 * (y >= height // 2) + (x >= width // 2)] for x in range(width)]
        if kind == 2:
            rows += b"\0" + b"".join(struct.pack(">HHH", *colour) for colour in line)
        else:
            number = int("".join(f"{grey:0{bits}b}" for grey in line), 2)
            rows += b"\0" + number.to_bytes(width * bits // 8, "big")
    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    body = chunk(b"IHDR", header) + early
    if transparent is not None:
        body += chunk(b"tRNS", struct.pack(f">{len(transparent)}H", *transparent))
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IDAT", zlib.compress(rows)) + late + END


END = chunk(b"IEND", b"")


def _without_adobe_marker(jpeg):
    at = jpeg.index(b"\xff\xee")
    return jpeg[:at] + jpeg[at + 2 + struct.unpack_from(">H", jpeg, at + 2)[0] :]


def _small_first_frame():
    """Returns a GIF of 80 x 60 pixels whose only frame is its upper left quarter."""
    part = bytearray(encode(Image.new("RGB", (40, 30), RED).quantize(4), "GIF"))
    part[6:10] = struct.pack("<HH", *SIZE)
    return bytes(part)


def _text(key, value, **options):
    found = PngImagePlugin.PngInfo()
    (found.add_itxt if key.startswith("XML") else found.add_text)(key, value, **options)
    return found


JPEG, TURNED_JPEG, TURNED_PNG = (
    encode(UPRIGHT, "JPEG"),
    encode(STORED, "JPEG"),
    encode(STORED, "PNG"),
)
EXIF = b"Exif\0\0" + tiff()
_RAW = f"\nexif\n{len(EXIF):8d}\n{EXIF.hex()}\n"
_BEHIND_TABLE = TURNED_JPEG.index(b"\xff\xdb") + 2 + 67
_LONG = segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta>" + b" " * 58_000) + segment(
    0xED, b"Photoshop 3.0\0" + bytes(9000)
)
_ICC = b"ICC_PROFILE\0\x01\x01"
_VIDEO = np.random.default_rng(0).integers(0, 256, 3 * 2**20, dtype=np.uint8).tobytes()

FOUR = (RED, GREEN, BLUE, WHITE)
SWAPPED = (GREEN, RED, BLUE, WHITE)
GREYS = [(grey,) * 3 for grey in (0, 85, 170, 255)]

# Content of the file; colours of its upright quarters; whether the TensorFlow graph may refuse it.
KINDS = {
    "JPEG": (JPEG, FOUR, False),
    "grey JPEG": (encode(quarters(0, 85, 170, 255), "JPEG"), GREYS, False),
    "progressive JPEG": (encode(UPRIGHT, "JPEG", progressive=True), FOUR, False),
    "JPEG rotated by EXIF": (encode(STORED, "JPEG", exif=EXIF), FOUR, False),
    "JPEG rotated by a long number": (
        encode(STORED, "JPEG", exif=b"Exif\0\0" + tiff(4)),
        FOUR,
        False,
    ),
    "JPEG rotated by EXIF after a table": (
        TURNED_JPEG[:_BEHIND_TABLE] + segment(0xE1, EXIF) + TURNED_JPEG[_BEHIND_TABLE:],
        FOUR,
        False,
    ),
    "JPEG rotated by EXIF after a fill byte": (
        TURNED_JPEG[:20] + b"\xff" + segment(0xE1, EXIF) + TURNED_JPEG[20:],
        FOUR,
        False,
    ),
    "JPEG rotated by XMP": (encode(STORED, "JPEG", xmp=xmp().encode()), FOUR, True),
    "JPEG with contradictory EXIF and XMP": (
        encode(UPRIGHT, "JPEG", exif=b"Exif\0\0" + tiff(value=1), xmp=xmp().encode()),
        FOUR,
        False,
    ),
    "CMYK JPEG": (encode(UPRIGHT.convert("CMYK"), "JPEG"), FOUR, True),
    "CMYK JPEG without Adobe's marker": (
        _without_adobe_marker(encode(UPRIGHT.convert("CMYK"), "JPEG")),
        FOUR,
        True,
    ),
    "JPEG with an sRGB profile": (encode(UPRIGHT, "JPEG", icc_profile=profile()), FOUR, False),
    "JPEG with another profile": (
        encode(UPRIGHT, "JPEG", icc_profile=profile(True)),
        SWAPPED,
        True,
    ),
    "JPEG with a profile after 64 KiB": (
        JPEG[:20] + _LONG + segment(0xE2, _ICC + profile(True)) + JPEG[20:],
        SWAPPED,
        True,
    ),
    "JPEG followed by a video": (JPEG + _VIDEO, FOUR, False),
    "JPEG with start markers in its metadata": (
        JPEG[:20] + segment(0xE1, b"XXX" + b"\xff\xda" * 40) + JPEG[20:],
        FOUR,
        False,
    ),
    "two JPEGs in one file": (
        encode(UPRIGHT, "MPO", save_all=True, append_images=[STORED], quality=95),
        FOUR,
        False,
    ),
    "PNG": (encode(UPRIGHT, "PNG"), FOUR, False),
    "PNG rotated by EXIF": (encode(STORED, "PNG", exif=EXIF), FOUR, False),
    "PNG rotated by EXIF after its pixels": (
        TURNED_PNG.replace(END, chunk(b"eXIf", tiff()) + END),
        FOUR,
        False,
    ),
    "PNG rotated by XMP": (
        encode(STORED, "PNG", pnginfo=_text("XML:com.adobe.xmp", xmp())),
        FOUR,
        True,
    ),
    "PNG rotated by XMP after its pixels": (
        TURNED_PNG.replace(
            END,
            chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp().encode()) + END,
        ),
        FOUR,
        True,
    ),
    "PNG rotated by compressed XMP": (
        encode(STORED, "PNG", pnginfo=_text("XML:com.adobe.xmp", xmp(), zip=True)),
        FOUR,
        True,
    ),
    "PNG rotated by a raw profile": (
        encode(STORED, "PNG", pnginfo=_text("Raw profile type exif", _RAW, zip=True)),
        FOUR,
        True,
    ),
    "PNG with an sRGB profile": (encode(UPRIGHT, "PNG", icc_profile=profile()), FOUR, False),
    "PNG with another profile": (encode(UPRIGHT, "PNG", icc_profile=profile(True)), SWAPPED, True),
    "PNG with alpha": (
        encode(quarters((*RED, 255), (0, 0, 0, 0), (*BLUE, 255), (*WHITE, 255)), "PNG"),
        (RED, WHITE, BLUE, WHITE),
        False,
    ),
    **{
        f"PNG of {bits} bits with a transparent grey": (
            png(bits, 0, samples, (samples[1],)),
            [(grey,) * 3 for grey in greys],
            False,
        )
        for bits, samples, greys in (
            (1, (0, 1, 0, 1), (0, 255, 0, 255)),
            (2, (0, 2, 1, 3), (0, 255, 85, 255)),
            (4, (0, 5, 10, 15), (0, 255, 170, 255)),
            (8, (0, 85, 170, 255), (0, 255, 170, 255)),
            (16, (0, 0x5512, 0x5500, 65535), (0, 255, 85, 255)),
        )
    },
    "PNG of 16-bit colours with a transparent one": (
        png(
            16,
            2,
            ((0x3412, 0x7856, 0xBC9A), (0x3400, 0x7800, 0xBC00), (0, 65535, 0), (0, 0, 65535)),
            (0x3412, 0x7856, 0xBC9A),
        ),
        (WHITE, (0x34, 0x78, 0xBC), (0, 255, 0), (0, 0, 255)),
        False,
    ),
    "GIF": (encode(UPRIGHT.quantize(8), "GIF"), FOUR, False),
    "GIF whose first frame is small": (_small_first_frame(), (RED, WHITE, WHITE, WHITE), True),
    "BMP": (encode(UPRIGHT, "BMP"), FOUR, False),
    "WebP rotated by XMP": (encode(STORED, "WEBP", quality=95, xmp=xmp().encode()), FOUR, True),
    "TIFF rotated by its tag": (encode(STORED, "TIFF", exif=EXIF), FOUR, True),
    "TIFF rotated by XMP": (encode(STORED, "TIFF", tiffinfo={700: xmp().encode()}), FOUR, True),
}
