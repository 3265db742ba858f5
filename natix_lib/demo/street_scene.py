"""Drawn street scenes: a road in perspective, with or without roadwork.

What does not tell the label (weather, light, buildings, vehicles, trees, pedestrians) varies freely, and colour alone
does not tell it either: streets without roadwork have orange vans, red signs and brick houses.
"""

import colorsys
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

WIDTH, HEIGHT = 288, 176
LIGHTS, WEATHERS = ("day", "dusk", "night"), ("clear", "rain", "fog", "snow")
ORANGE, WHITE, RED, YELLOW, DARK = (242, 110, 24), (240, 240, 236), (200, 30, 34), (240, 196, 40), (40, 40, 44)

Colour = tuple[int, int, int]
Painter = Callable[[ImageDraw.ImageDraw, float, float, float], None]


def _box(draw: ImageDraw.ImageDraw, x: float, y: float, width: float, height: float, colour: Colour) -> None:
    """A rectangle standing on y, centred at x."""
    draw.rectangle((x - width / 2, y - height, x + width / 2, y), fill=colour)


def _stripes(draw: ImageDraw.ImageDraw, x: float, y: float, width: float, height: float, first: Colour) -> None:
    """A board of slanted stripes standing on y."""
    _box(draw, x, y, width, height, WHITE)
    step = width / 6
    for i in range(6):
        left = x - width / 2 + i * step
        draw.polygon([(left, y), (left + step / 2, y), (left + step, y - height), (left + step / 2, y - height)], first)


def cone(draw: ImageDraw.ImageDraw, x: float, y: float, s: float) -> None:
    """A traffic cone, s pixels high."""
    _box(draw, x, y, 0.72 * s, 0.1 * s, ORANGE)
    draw.polygon([(x - 0.27 * s, y - 0.08 * s), (x + 0.27 * s, y - 0.08 * s), (x, y - 1.05 * s)], ORANGE)
    draw.polygon(
        [
            (x - 0.18 * s, y - 0.36 * s),
            (x + 0.18 * s, y - 0.36 * s),
            (x + 0.1 * s, y - 0.64 * s),
            (x - 0.1 * s, y - 0.64 * s),
        ],
        WHITE,
    )


def barrel(draw: ImageDraw.ImageDraw, x: float, y: float, s: float) -> None:
    """A channelising drum."""
    for i in range(5):
        _box(draw, x, y - i * 0.22 * s, 0.66 * s, 0.22 * s, ORANGE if i % 2 == 0 else WHITE)


def barrier(draw: ImageDraw.ImageDraw, x: float, y: float, s: float) -> None:
    """A striped barrier on two legs."""
    for side in (-0.7, 0.7):
        _box(draw, x + side * s, y, 0.1 * s, s, DARK)
    _stripes(draw, x, y - 0.6 * s, 1.9 * s, 0.4 * s, RED)
    _stripes(draw, x, y - 0.1 * s, 1.9 * s, 0.28 * s, RED)


def fence(draw: ImageDraw.ImageDraw, x: float, y: float, s: float) -> None:
    """A mesh fence panel."""
    for i in range(9):
        left = x + (i - 4) * 0.25 * s
        draw.line((left, y, left, y - 1.3 * s), (150, 154, 158), max(1, round(0.05 * s)))
    for level in (0.1, 0.7, 1.3):
        draw.line((x - s, y - level * s, x + s, y - level * s), (170, 174, 178), max(1, round(0.07 * s)))


def sign(draw: ImageDraw.ImageDraw, x: float, y: float, s: float) -> None:
    """A men-at-work triangle."""
    _box(draw, x, y, 0.1 * s, 1.2 * s, (120, 120, 120))
    draw.polygon([(x - 0.75 * s, y - 0.9 * s), (x + 0.75 * s, y - 0.9 * s), (x, y - 2.2 * s)], RED)
    draw.polygon([(x - 0.5 * s, y - 1.03 * s), (x + 0.5 * s, y - 1.03 * s), (x, y - 1.9 * s)], YELLOW)
    draw.polygon([(x - 0.2 * s, y - 1.06 * s), (x + 0.25 * s, y - 1.06 * s), (x + 0.05 * s, y - 1.6 * s)], DARK)


def arrow_board(draw: ImageDraw.ImageDraw, x: float, y: float, s: float) -> None:
    """A trailer with a lit arrow."""
    _box(draw, x, y, 0.2 * s, s, DARK)
    _box(draw, x, y - 0.7 * s, 1.8 * s, 1.1 * s, (24, 24, 26))
    draw.polygon([(x - 0.8 * s, y - 1.25 * s), (x - 0.2 * s, y - 1.7 * s), (x - 0.2 * s, y - 0.8 * s)], YELLOW)
    _box(draw, x + 0.2 * s, y - 1.12 * s, 0.9 * s, 0.26 * s, YELLOW)


def excavator(draw: ImageDraw.ImageDraw, x: float, y: float, s: float) -> None:
    """A yellow digger with its arm out."""
    draw.ellipse((x - s, y - 0.4 * s, x + s, y), DARK)
    _box(draw, x, y - 0.35 * s, 1.5 * s, 0.8 * s, YELLOW)
    _box(draw, x - 0.3 * s, y - 1.1 * s, 0.6 * s, 0.6 * s, (90, 110, 130))
    draw.line((x + 0.5 * s, y - s, x + 1.2 * s, y - 2 * s, x + 1.9 * s, y - 0.7 * s), YELLOW, max(2, round(0.22 * s)))
    draw.polygon([(x + 1.6 * s, y - 0.7 * s), (x + 2.2 * s, y - 0.7 * s), (x + 1.9 * s, y - 0.2 * s)], DARK)


def roller(draw: ImageDraw.ImageDraw, x: float, y: float, s: float) -> None:
    """A road roller."""
    draw.ellipse((x - 1.3 * s, y - 0.9 * s, x - 0.4 * s, y), (70, 70, 74))
    draw.ellipse((x + 0.4 * s, y - 0.9 * s, x + 1.3 * s, y), (70, 70, 74))
    _box(draw, x, y - 0.6 * s, 1.8 * s, 0.6 * s, (236, 170, 20))
    _box(draw, x + 0.1 * s, y - 1.2 * s, 0.8 * s, 0.7 * s, (60, 80, 100))


def gravel(draw: ImageDraw.ImageDraw, x: float, y: float, s: float) -> None:
    """A heap of gravel."""
    draw.polygon(
        [(x - 1.6 * s, y), (x + 1.6 * s, y), (x + 0.3 * s, y - 1.1 * s), (x - 0.4 * s, y - 1.0 * s)], (158, 138, 104)
    )
    for i in range(14):
        left, top = x + (i * 37 % 23 - 11) / 11 * s, y - (i * 29 % 17) / 17 * 0.5 * s
        _box(draw, left, top, 0.2 * s, 0.16 * s, (118, 104, 82))


def trench(draw: ImageDraw.ImageDraw, x: float, y: float, s: float) -> None:
    """An opened strip of road."""
    draw.polygon(
        [(x - 1.5 * s, y), (x + 1.5 * s, y), (x + 1.0 * s, y - 0.8 * s), (x - 1.0 * s, y - 0.8 * s)], (92, 62, 38)
    )
    draw.polygon(
        [
            (x - 1.1 * s, y - 0.1 * s),
            (x + 1.1 * s, y - 0.1 * s),
            (x + 0.8 * s, y - 0.7 * s),
            (x - 0.8 * s, y - 0.7 * s),
        ],
        (38, 26, 18),
    )


def lights(draw: ImageDraw.ImageDraw, x: float, y: float, s: float) -> None:
    """A temporary traffic light on a trailer."""
    _box(draw, x, y, 0.9 * s, 0.3 * s, YELLOW)
    _box(draw, x, y - 0.3 * s, 0.16 * s, 1.1 * s, DARK)
    _box(draw, x, y - 1.2 * s, 0.6 * s, 1.3 * s, (20, 20, 22))
    for level, colour in ((2.25, (255, 40, 30)), (1.85, (90, 70, 10)), (1.45, (10, 70, 30))):
        draw.ellipse((x - 0.2 * s, y - (level + 0.2) * s, x + 0.2 * s, y - (level - 0.2) * s), colour)


def worker(draw: ImageDraw.ImageDraw, x: float, y: float, s: float) -> None:
    """A worker in a high-visibility vest and helmet."""
    _box(draw, x, y, 0.4 * s, 0.7 * s, (30, 40, 80))
    _box(draw, x, y - 0.65 * s, 0.6 * s, 0.75 * s, (190, 240, 30))
    _box(draw, x, y - 0.95 * s, 0.6 * s, 0.12 * s, WHITE)
    draw.ellipse((x - 0.2 * s, y - 1.75 * s, x + 0.2 * s, y - 1.35 * s), ORANGE)


ROADWORK: dict[str, Painter] = {
    "ArrowBoard": arrow_board,
    "Barrels": barrel,
    "Barrier": barrier,
    "Cones": cone,
    "Excavator": excavator,
    "Fence": fence,
    "Gravel": gravel,
    "Lights": lights,
    "Roller": roller,
    "Sign": sign,
    "Trench": trench,
    "Workers": worker,
}


@dataclass(frozen=True)
class Scene:
    """One street: what a drive's frames have in common. `objects` are (painter, side offset, distance, height)."""

    light: str
    weather: str
    seed: int
    objects: list[tuple[Painter, float, float, float]] = field(default_factory=list)


def draw_frame(scene: Scene, frame: int) -> Image.Image:
    """Frame number `frame` of a drive through `scene`, RGB WIDTH x HEIGHT; always the same pixels."""
    generator = np.random.default_rng(scene.seed)
    wobble = np.random.default_rng((scene.seed, frame))
    advance = 0.05 * frame
    horizon = HEIGHT * generator.uniform(0.36, 0.46) + wobble.normal(0, 0.8)
    centre = WIDTH * generator.uniform(0.42, 0.58) + wobble.normal(0, 1.5)
    sky = {"day": (150, 190, 226), "dusk": (206, 142, 110), "night": (34, 38, 60)}[scene.light]
    image = Image.new("RGB", (WIDTH, HEIGHT), sky)
    draw = ImageDraw.Draw(image)
    for side in (-1, 1):
        _draw_houses(draw, generator, side, horizon, centre, advance)
    verge = (84, 112, 66) if generator.random() < 0.5 else (134, 130, 124)
    draw.rectangle((0, horizon, WIDTH, HEIGHT), verge)
    road = tuple(int(v) for v in generator.integers(72, 104, 1).repeat(3))
    spread = WIDTH * generator.uniform(0.5, 0.75)
    draw.polygon(
        [(centre - 3, horizon), (centre + 3, horizon), (centre + spread, HEIGHT), (centre - spread, HEIGHT)], road
    )
    for dash in range(7):
        near, far = _perspective(dash * 0.5 + 0.9 - advance % 0.5), _perspective(dash * 0.5 + 1.12 - advance % 0.5)
        y0, y1 = horizon + near * (HEIGHT - horizon), horizon + far * (HEIGHT - horizon)
        draw.polygon(
            [(centre - 4 * near, y0), (centre + 4 * near, y0), (centre + 4 * far, y1), (centre - 4 * far, y1)], WHITE
        )
    objects = [*scene.objects]
    for _ in range(int(generator.integers(1, 5))):
        objects.append(
            (
                _vehicle(generator),
                generator.choice((-0.45, 0.45)) + generator.normal(0, 0.08),
                generator.uniform(1.3, 4),
                0.62,
            )
        )
    for _ in range(int(generator.integers(0, 5))):
        objects.append(
            (
                _roadside(generator),
                generator.choice((-1.25, 1.25)),
                generator.uniform(1.2, 4),
                generator.uniform(0.4, 0.9),
            )
        )
    for painter, offset, distance, height in sorted(objects, key=lambda standing: -standing[2]):
        scale = _perspective(max(distance - advance, 0.85))
        y = horizon + scale * (HEIGHT - horizon)
        painter(draw, centre + offset * spread * scale + wobble.normal(0, 0.4), y, height * 78 * scale)
    return _weathered(image, scene, generator, wobble)


def _perspective(distance: float) -> float:
    """Share of the way from the horizon down to the lower edge."""
    return 1.0 / max(distance, 0.2)


def _draw_houses(
    draw: ImageDraw.ImageDraw, generator: np.random.Generator, side: int, horizon: float, centre: float, advance: float
) -> None:
    near = 0.0
    while near < 1.0:
        width = generator.uniform(0.12, 0.3)
        hue, light = generator.choice((0.04, 0.08, 0.12, 0.6)), generator.uniform(0.35, 0.75)
        colour = tuple(int(255 * v) for v in colorsys.hls_to_rgb(hue, light, generator.uniform(0.1, 0.5)))
        tall = generator.uniform(0.3, 1.0) * (0.35 + near)
        edges = [centre + side * (near + part * width + 0.06 * advance) * WIDTH * 0.62 for part in (0.0, 1.0)]
        left, right = min(edges), max(edges)
        draw.rectangle((left, horizon - tall * HEIGHT * 0.6, right, horizon + 2), colour)
        for window in range(3):
            x = left + (right - left) * (0.2 + 0.28 * window)
            draw.rectangle((x, horizon - tall * HEIGHT * 0.45, x + 4, horizon - tall * HEIGHT * 0.3), (70, 82, 96))
        near += width


def _vehicle(generator: np.random.Generator) -> Painter:
    colours = [
        (180, 184, 190),
        (34, 36, 40),
        (150, 24, 28),
        (30, 60, 130),
        (236, 120, 30),
        (230, 228, 220),
        (226, 190, 40),
    ]
    colour = colours[int(generator.integers(len(colours)))]
    van = generator.random() < 0.35

    def paint(draw: ImageDraw.ImageDraw, x: float, y: float, s: float) -> None:
        _box(draw, x, y, 1.3 * s, 0.16 * s, DARK)
        _box(draw, x, y - 0.1 * s, 1.4 * s, (1.2 if van else 0.5) * s, colour)
        _box(draw, x, y - (0.8 if van else 0.6) * s, 1.05 * s, 0.36 * s, (70, 86, 100))
        for side in (-0.55, 0.55):
            _box(draw, x + side * s, y - 0.35 * s, 0.2 * s, 0.12 * s, (220, 40, 36))

    return paint


def _roadside(generator: np.random.Generator) -> Painter:
    """A tree, a pedestrian, a round red sign or a grey bollard."""
    choice = int(generator.integers(4))
    shade = int(generator.integers(60, 120))

    def paint(draw: ImageDraw.ImageDraw, x: float, y: float, s: float) -> None:
        if choice == 0:
            _box(draw, x, y, 0.16 * s, 1.6 * s, (84, 62, 44))
            draw.ellipse((x - 0.8 * s, y - 2.8 * s, x + 0.8 * s, y - 1.2 * s), (40, shade + 20, 44))
        elif choice == 1:
            _box(draw, x, y, 0.34 * s, 0.7 * s, (40, 44, 60))
            _box(draw, x, y - 0.65 * s, 0.44 * s, 0.7 * s, (shade, 60, 110))
            draw.ellipse((x - 0.17 * s, y - 1.65 * s, x + 0.17 * s, y - 1.3 * s), (196, 150, 120))
        elif choice == 2:
            _box(draw, x, y, 0.1 * s, 1.8 * s, (130, 130, 130))
            draw.ellipse((x - 0.5 * s, y - 2.5 * s, x + 0.5 * s, y - 1.5 * s), RED)
            _box(draw, x, y - 1.9 * s, 0.7 * s, 0.2 * s, WHITE)
        else:
            _box(draw, x, y, 0.25 * s, 0.8 * s, (shade + 60, shade + 60, shade + 60))

    return paint


def _weathered(
    image: Image.Image, scene: Scene, generator: np.random.Generator, wobble: np.random.Generator
) -> Image.Image:
    """Light, weather and sensor noise."""
    if scene.weather == "fog":
        image = image.filter(ImageFilter.GaussianBlur(0.8))
    pixels = np.asarray(image, dtype=np.float32)
    if scene.weather == "fog":
        pixels = 0.62 * pixels + 0.38 * 190
    gain = {"day": 1.0, "dusk": 0.72, "night": 0.46}[scene.light] * generator.uniform(0.9, 1.1)
    tint = {"day": (1, 1, 1), "dusk": (1.08, 0.96, 0.86), "night": (0.9, 0.95, 1.15)}[scene.light]
    noise = wobble.integers(-7, 8, (*pixels.shape[:2], 1), dtype=np.int16)
    lit = pixels * (gain * np.array(tint)) + noise
    image = Image.fromarray(lit.clip(0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range({"rain": 90, "snow": 160}.get(scene.weather, 0)):
        x, y = wobble.uniform(0, WIDTH), wobble.uniform(0, HEIGHT)
        if scene.weather == "rain":
            draw.line((x, y, x - 2, y + 7), (176, 184, 196))
        else:
            draw.ellipse((x, y, x + 2, y + 2), (236, 238, 240))
    return image
