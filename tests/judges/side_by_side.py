"""Pictures beside each other: side_by_side.py OUT PICTURE.."""

import sys

from PIL import Image

out, *names = sys.argv[1:]
pictures = [Image.open(name).convert("RGB") for name in names]
whole = Image.new("RGB", (sum(one.width + 8 for one in pictures), max(one.height for one in pictures)), (90, 90, 90))
left = 0
for one in pictures:
    whole.paste(one, (left, 0))
    left += one.width + 8
whole.save(out)
