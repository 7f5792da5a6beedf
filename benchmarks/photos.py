"""Write a folder of JPEG photographs of a realistic size (500 x 375), to measure loading and training.

They are crops of the colour photographs in scikit-image (`pip install scikit-image`), one class for each photograph:
`train` from the left two thirds, `val` from the right third. They measure speed, not the quality of features.

    python benchmarks/photos.py photos --count 5000
"""

import argparse
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from pathlib import Path

import numpy as np
from PIL import Image

NAMES = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png", "retina.jpg", "ihc.png")
SIZE = (500, 375)
QUALITY = 90


@cache
def source(name: str) -> Image.Image:
    """Open a photograph of scikit-image."""
    import skimage.data

    with Image.open(Path(skimage.data.__file__).parent / name) as image:
        return image.convert("RGB")


def write(folder: Path, split: str, number: int) -> None:
    """Write a crop."""
    name = NAMES[number % len(NAMES)]
    image, generator = source(name), np.random.default_rng([number, split == "train"])
    border = round(image.width * 2 / 3)
    left, right = (0, border) if split == "train" else (border, image.width)
    width = min((right - left) * generator.uniform(0.4, 1.0), image.height * SIZE[0] / SIZE[1])
    height = width * SIZE[1] / SIZE[0]
    x, y = left + generator.uniform(0, right - left - width), generator.uniform(0, image.height - height)
    crop = image.resize(SIZE, Image.Resampling.BICUBIC, box=(x, y, x + width, y + height))
    if generator.random() < 0.5:
        crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    crop.save(folder / split / name.partition(".")[0] / f"{number}.jpg", quality=QUALITY)


def main() -> None:
    """Write the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=5000, help="training files; a tenth of that is added for val")
    args = parser.parse_args()
    for split, count in (("train", args.count), ("val", args.count // 10)):
        for name in NAMES:
            (args.folder / split / name.partition(".")[0]).mkdir(parents=True, exist_ok=True)
        with ProcessPoolExecutor() as pool:
            list(pool.map(partial(write, args.folder, split), range(count), chunksize=50))
    files = list(args.folder.rglob("*.jpg"))
    size = sum(file.stat().st_size for file in files) / len(files) / 1000
    print(f"{len(files)} files of {SIZE[0]} x {SIZE[1]}, {size:.0f} kB each, in {args.folder}")


if __name__ == "__main__":
    main()
