"""Cars for the demo's studio: a body, a cabin, mirrors and wheels as lofted surfaces of many small facets.

Lengths are metres; x points to the car's front, y to its left, z up. The same seed gives the same car.
"""

from dataclasses import dataclass

import numpy as np

# name: length, width, height, bonnet height, then where the cabin's glass begins and its roof begins and ends, as
# shares of the length
BODIES = {
    "saloon": (4.6, 1.80, 1.42, 0.88, (0.10, 0.27, 0.55, 0.72)),
    "coupe": (4.4, 1.82, 1.30, 0.82, (0.06, 0.33, 0.50, 0.70)),
    "hatchback": (4.0, 1.74, 1.48, 0.92, (0.035, 0.11, 0.56, 0.76)),
    "estate": (4.7, 1.80, 1.47, 0.90, (0.03, 0.09, 0.58, 0.74)),
    "suv": (4.5, 1.88, 1.70, 1.05, (0.035, 0.10, 0.58, 0.74)),
    "van": (4.7, 1.92, 1.90, 1.02, (0.03, 0.06, 0.70, 0.88)),
    "pickup": (5.2, 1.90, 1.75, 1.08, (0.40, 0.44, 0.62, 0.74)),
}
PAINTS = {
    "white": (232, 233, 231),
    "silver": (168, 172, 176),
    "grey": (98, 102, 106),
    "black": (26, 27, 30),
    "red": (158, 24, 28),
    "blue": (28, 62, 128),
    "green": (34, 84, 62),
    "yellow": (214, 170, 32),
    "orange": (200, 92, 26),
    "brown": (92, 66, 48),
}
GLASS, RUBBER, RIM, LAMP, TAIL = (22, 30, 36), (20, 20, 21), (176, 178, 182), (236, 238, 232), (150, 14, 18)


@dataclass(frozen=True)
class Car:
    """What tells one car from another."""

    body: str
    paint: str
    length: float
    width: float
    height: float
    bonnet: float
    cabin: tuple[float, float, float, float]
    wheel: float
    offset: tuple[float, float]  # of the car from the turntable's centre
    turn: float  # of the first view, degrees


def make_car(seed: int, number: int) -> Car:
    """Car `number` of the seed's fleet; every fifth one is white, Carvana's hard case."""
    random = np.random.default_rng([seed, number])
    body = list(BODIES)[int(random.integers(len(BODIES)))]
    length, width, height, bonnet, cabin = BODIES[body]
    grow = random.uniform(0.95, 1.06, 4)
    paint = "white" if number % 5 == 1 else list(PAINTS)[int(random.integers(1, len(PAINTS)))]
    shift = tuple(np.clip(np.array(cabin) + random.uniform(-0.015, 0.015), 0.025, 0.95).tolist())
    offset = tuple(random.uniform((-0.55, -0.3), (0.55, 0.3)).tolist())
    return Car(body, paint, length * grow[0], width * grow[1], height * grow[2], bonnet * grow[3], shift,
               float(random.uniform(0.31, 0.37)), offset, float(random.uniform(-6, 6)))  # fmt: skip


@dataclass
class Mesh:
    """Facets (F, 4, 3), a colour (F, 3), a gloss (F,) and metres (F,) by which each is drawn as if it were nearer."""

    facets: np.ndarray
    colours: np.ndarray
    gloss: np.ndarray
    nearer: np.ndarray


def _grid(points: np.ndarray) -> np.ndarray:
    """(U, V, 3) surface points -> (F, 4, 3) facets."""
    corners = points[:-1, :-1], points[1:, :-1], points[1:, 1:], points[:-1, 1:]
    return np.stack(corners, axis=2).reshape(-1, 4, 3)


def power(value: np.ndarray, exponent: float) -> np.ndarray:
    return np.sign(value) * np.abs(value) ** exponent


def _smooth(x: np.ndarray, low: float, high: float) -> np.ndarray:
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def _mesh(
    points: np.ndarray, paint: tuple, gloss: float, inside: tuple[float, float, float], nearer: float = 0
) -> Mesh:
    """Facets of a surface (U, V, 3), turned so that they face away from the point `inside`."""
    facets = _grid(points)
    normal = np.cross(facets[:, 2] - facets[:, 0], facets[:, 3] - facets[:, 1])
    inward = ((facets.mean(1) - np.array(inside)) * normal).sum(1) < 0
    facets[inward] = facets[inward][:, ::-1]
    colours = np.tile(np.array(paint, np.float32), (len(facets), 1))
    return Mesh(facets, colours, np.full(len(facets), gloss, np.float32), np.full(len(facets), nearer, np.float32))


def _closed(points: np.ndarray) -> np.ndarray:
    """A loft (U, V, 3) with both of its ends drawn together to a point."""
    first, last = (np.broadcast_to(ring.mean(0), ring.shape)[None] for ring in (points[0], points[-1]))
    return np.concatenate([first, points, last])


def _lower_body(car: Car) -> Mesh:
    u, v = np.linspace(0, 1, 53)[:, None], np.linspace(0, 2 * np.pi, 45)[None]
    ends = np.abs(2 * u - 1)
    rounding = np.clip(1 - ends**9, 0, None) ** 0.5
    bottom = 0.22 + 0.12 * ends**6
    bed = 0.05 if car.body == "pickup" else 0.02
    top = car.bonnet - 0.13 * _smooth(u, 0.78, 1.0) - bed * _smooth(-u, -0.3, 0.0)
    half = car.width / 2 * (1 - 0.10 * ends**4)
    middle, tall = (top + bottom) / 2, (top - bottom) / 2 * (0.25 + 0.75 * rounding)
    y = half * (0.55 + 0.45 * rounding) * power(np.cos(v), 0.38)
    z = middle + tall * power(np.sin(v), 0.5)
    x = np.broadcast_to((u - 0.5) * car.length, y.shape)
    mesh = _mesh(_closed(np.stack([x, y, z], axis=2)), PAINTS[car.paint], 1.0, (0, 0, car.bonnet / 2))
    centre = mesh.facets.mean(1)
    share = (centre[:, 2] - 0.25) / (car.bonnet - 0.25)
    wide = np.abs(centre[:, 1]) / (car.width / 2)
    lamps = (wide > 0.42) & (share > 0.5) & (share < 0.84)
    mesh.colours[lamps & (centre[:, 0] > 0.472 * car.length)] = LAMP
    mesh.colours[lamps & (centre[:, 0] < -0.478 * car.length)] = TAIL
    grille = (centre[:, 0] > 0.483 * car.length) & (wide < 0.42) & (share > 0.12) & (share < 0.66)
    low = share < 0.12
    mesh.colours[grille | low], mesh.gloss[low] = RUBBER, 0.2
    return mesh


def _cabin(car: Car) -> Mesh:
    """The roof and glass: a loft over half a turn, narrower towards the top."""
    begin, roof_begin, roof_end, end = car.cabin
    u = np.linspace(begin, end, 49)[:, None]
    v = np.linspace(0, np.pi, 41)[None]
    base = car.bonnet - 0.05
    rise = _smooth(u, begin, roof_begin) ** 0.7 * _smooth(-u, -end, -roof_end) ** 0.7
    sine = power(np.sin(v), 0.55)
    z = base + (car.height - base) * (0.02 + 0.98 * rise) * sine
    narrow = 0.55 + 0.45 * np.clip(1 - np.abs(2 * u - 1) ** 9, 0, None) ** 0.5
    y = car.width / 2 * narrow * (0.90 - 0.16 * sine * rise) * power(np.cos(v), 0.42)
    x = np.broadcast_to((u - 0.5) * car.length, y.shape)
    inside = ((begin + end - 1) / 2 * car.length, 0, base)
    mesh = _mesh(np.stack([x, y, z], axis=2), PAINTS[car.paint], 1.0, inside, nearer=0.3)
    centre = mesh.facets.mean(1)
    share = (centre[:, 2] - car.bonnet) / (car.height - car.bonnet)
    along = centre[:, 0] / car.length + 0.5
    edge = np.abs(centre[:, 1]) / (car.width / 2)
    side = edge > 0.68
    pillars = (
        np.minimum(np.abs(along - (roof_begin + roof_end) / 2), np.abs(along - (roof_begin * 0.85 + roof_end * 0.15)))
        < 0.012
    )
    glass = (
        (share > 0.10)
        & (share < 0.86)
        & ~(side & pillars)
        & (side | (along < roof_begin) | (along > roof_end))
        & (np.abs(edge - 0.70) > 0.025)
    )
    if car.body == "van":
        glass &= along > 0.42
    mesh.colours[glass], mesh.gloss[glass] = GLASS, 2.0
    return mesh


def _mirrors(car: Car) -> list[Mesh]:
    u, v = np.linspace(0, np.pi, 9)[:, None], np.linspace(0, 2 * np.pi, 13)[None]
    place = (car.cabin[3] - 0.045 - 0.5) * car.length
    meshes = []
    for side in (-1, 1):
        x = place + 0.07 * np.sin(u) * np.cos(v)
        z = car.bonnet + 0.06 + 0.075 * np.sin(u) * np.sin(v)
        y = side * (car.width / 2 * 0.93 + 0.10) + 0.10 * np.cos(u) * np.ones_like(v) * -1
        middle = (place, side * (car.width / 2 * 0.93 + 0.10), car.bonnet + 0.06)
        meshes.append(_mesh(np.stack([x, y, z], axis=2), PAINTS[car.paint], 1.0, middle, nearer=0.5))
    return meshes


def _wheels(car: Car) -> list[Mesh]:
    angle = np.linspace(0, 2 * np.pi, 31)
    circle = np.stack([np.cos(angle), np.zeros_like(angle), np.sin(angle)], axis=1)
    meshes = []
    for along in (-0.305, 0.315):
        for side in (-1, 1):
            outer = side * (car.width / 2 * 0.965)
            centre = np.array([along * car.length, outer, car.wheel])
            inner = np.array([0, -side * 0.24, 0])
            tread = np.stack([centre + car.wheel * circle, centre + inner + car.wheel * circle])
            meshes.append(_mesh(tread, RUBBER, 0.1, tuple(centre + inner / 2)))
            for radius, out, colour, gloss in (
                (1.16, 0.012, (12, 12, 13), 0.0),
                (1.0, 0.02, RUBBER, 0.1),
                (0.66, 0.03, RIM, 0.8),
                (0.16, 0.035, (70, 72, 75), 0.5),
            ):
                middle = centre + np.array([0, side * out, 0])
                ring = middle + radius * car.wheel * circle
                if radius > 1:
                    ring = ring[circle[:, 2] >= -0.25]  # the arch is open below
                disc = _mesh(
                    np.stack([np.broadcast_to(middle, ring.shape), ring]),
                    colour,
                    gloss,
                    tuple(centre + inner),
                    nearer=0.55,
                )
                if radius == 0.66:
                    disc.colours[np.arange(len(disc.colours)) % 5 >= 3] = (52, 53, 56)  # between the spokes
                meshes.append(disc)
    return meshes


def car_mesh(car: Car) -> Mesh:
    """All facets of a car standing on z = 0, centred on x = y = 0."""
    parts = [_lower_body(car), _cabin(car), *_mirrors(car), *_wheels(car)]
    return Mesh(
        *(np.concatenate([getattr(part, name) for part in parts]) for name in ("facets", "colours", "gloss", "nearer"))
    )
