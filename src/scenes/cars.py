"""Cars for the demo's studio: a body, a cabin, mirrors and wheels as lofted surfaces of many small facets.

Lengths are meters; x points to the car's front, y to its left, z up. The same seed gives the same car.
"""

from dataclasses import dataclass, fields

import numpy as np

# length, width, height, height of the hood, then where the cabin's glass begins, its roof begins and ends, and its
# glass ends, as shares of the length. The names of bodies and paints are part of each picture's seed.
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
    "white": (232, 233, 231), "silver": (168, 172, 176), "grey": (98, 102, 106), "black": (26, 27, 30),
    "red": (158, 24, 28), "blue": (28, 62, 128), "green": (34, 84, 62), "yellow": (214, 170, 32),
    "orange": (200, 92, 26), "brown": (92, 66, 48),
}  # fmt: skip
GLASS, RUBBER, RIM, SPOKES = (22, 30, 36), (20, 20, 21), (176, 178, 182), (52, 53, 56)
LAMP, TAIL = (236, 238, 232), (150, 14, 18)
_DISCS = (  # of a wheel: radius as a share of the wheel's, meters outwards, color and gloss of arch, tire, rim, hub
    (1.16, 0.012, (12, 12, 13), 0.0), (1.0, 0.02, RUBBER, 0.1), (0.66, 0.03, RIM, 0.8),
    (0.16, 0.035, (70, 72, 75), 0.5),
)  # fmt: skip
Point = tuple[float, float, float] | np.ndarray


@dataclass(frozen=True)
class Car:
    """What tells one car from another."""

    body: str
    paint: str
    length: float
    width: float
    height: float
    hood: float
    cabin: tuple[float, float, float, float]
    wheel: float
    offset: tuple[float, float]  # of the car from the turntable's center
    turn: float  # of the first view, degrees


def make_car(seed: int, number: int) -> Car:
    """Make car `number` of the seed's fleet; every fifth one is white, Carvana's hard case."""
    random = np.random.default_rng([seed, number])
    body = list(BODIES)[int(random.integers(len(BODIES)))]
    length, width, height, hood, cabin = BODIES[body]
    grow = random.uniform(0.95, 1.06, 4)
    paint = "white" if number % 5 == 1 else list(PAINTS)[int(random.integers(1, len(PAINTS)))]
    shift = tuple(np.clip(np.array(cabin) + random.uniform(-0.015, 0.015), 0.025, 0.95).tolist())
    offset = tuple(random.uniform((-0.55, -0.3), (0.55, 0.3)).tolist())
    return Car(body, paint, length * grow[0], width * grow[1], height * grow[2], hood * grow[3], shift,
               float(random.uniform(0.31, 0.37)), offset, float(random.uniform(-6, 6)))  # fmt: skip


@dataclass
class Mesh:
    """Facets (F, 4, 3), a color (F, 3), a gloss (F,) and meters (F,) by which each is drawn as if it were nearer."""

    facets: np.ndarray
    colors: np.ndarray
    gloss: np.ndarray
    nearer: np.ndarray


def power(value: np.ndarray, exponent: float) -> np.ndarray:
    """Raise to a power and keep the sign."""
    return np.sign(value) * np.abs(value) ** exponent


def _smooth(x: np.ndarray, low: float, high: float) -> np.ndarray:
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def _mesh(points: np.ndarray, paint: tuple[int, int, int], gloss: float, inside: Point, nearer: float = 0) -> Mesh:
    """Cut a surface (U, V, 3) into facets that face away from the point `inside`."""
    corners = points[:-1, :-1], points[1:, :-1], points[1:, 1:], points[:-1, 1:]
    facets = np.stack(corners, axis=2).reshape(-1, 4, 3)
    normal = np.cross(facets[:, 2] - facets[:, 0], facets[:, 3] - facets[:, 1])
    inward = ((facets.mean(1) - np.array(inside)) * normal).sum(1) < 0
    facets[inward] = facets[inward][:, ::-1]
    colors = np.tile(np.array(paint, np.float32), (len(facets), 1))
    return Mesh(facets, colors, np.full(len(facets), gloss, np.float32), np.full(len(facets), nearer, np.float32))


def _closed(points: np.ndarray) -> np.ndarray:
    """Draw both ends of a loft (U, V, 3) together to a point."""
    first, last = (np.broadcast_to(ring.mean(0), ring.shape)[None] for ring in (points[0], points[-1]))
    return np.concatenate([first, points, last])


def _lower_body(car: Car) -> Mesh:
    u, v = np.linspace(0, 1, 53)[:, None], np.linspace(0, 2 * np.pi, 45)[None]
    ends = np.abs(2 * u - 1)
    rounding = np.clip(1 - ends**9, 0, None) ** 0.5
    bottom = 0.22 + 0.12 * ends**6
    bed = 0.05 if car.body == "pickup" else 0.02
    top = car.hood - 0.13 * _smooth(u, 0.78, 1.0) - bed * _smooth(-u, -0.3, 0.0)
    half = car.width / 2 * (1 - 0.10 * ends**4)
    middle, tall = (top + bottom) / 2, (top - bottom) / 2 * (0.25 + 0.75 * rounding)
    y = half * (0.55 + 0.45 * rounding) * power(np.cos(v), 0.38)
    z = middle + tall * power(np.sin(v), 0.5)
    x = np.broadcast_to((u - 0.5) * car.length, y.shape)
    return _mesh(_closed(np.stack([x, y, z], axis=2)), PAINTS[car.paint], 1.0, (0, 0, car.hood / 2))


def _fit_lamps(body: Mesh, car: Car) -> None:
    """Color the lower body's lamps, its grille and the sill."""
    center = body.facets.mean(1)
    share = (center[:, 2] - 0.25) / (car.hood - 0.25)
    wide = np.abs(center[:, 1]) / (car.width / 2)
    lamps = (wide > 0.42) & (share > 0.5) & (share < 0.84)
    body.colors[lamps & (center[:, 0] > 0.472 * car.length)] = LAMP
    body.colors[lamps & (center[:, 0] < -0.478 * car.length)] = TAIL
    grille = (center[:, 0] > 0.483 * car.length) & (wide < 0.42) & (share > 0.12) & (share < 0.66)
    low = share < 0.12
    body.colors[grille | low], body.gloss[low] = RUBBER, 0.2


def _cabin(car: Car) -> Mesh:
    """Loft the roof over half a turn, narrower towards the top."""
    begin, roof_begin, roof_end, end = car.cabin
    u = np.linspace(begin, end, 49)[:, None]
    v = np.linspace(0, np.pi, 41)[None]
    base = car.hood - 0.05
    rise = _smooth(u, begin, roof_begin) ** 0.7 * _smooth(-u, -end, -roof_end) ** 0.7
    sine = power(np.sin(v), 0.55)
    z = base + (car.height - base) * (0.02 + 0.98 * rise) * sine
    narrow = 0.55 + 0.45 * np.clip(1 - np.abs(2 * u - 1) ** 9, 0, None) ** 0.5
    y = car.width / 2 * narrow * (0.90 - 0.16 * sine * rise) * power(np.cos(v), 0.42)
    x = np.broadcast_to((u - 0.5) * car.length, y.shape)
    inside = ((begin + end - 1) / 2 * car.length, 0, base)
    return _mesh(np.stack([x, y, z], axis=2), PAINTS[car.paint], 1.0, inside, nearer=0.3)


def _glaze(cabin: Mesh, car: Car) -> None:
    """Turn the cabin's facets into glass, but for roof, pillars and a van's load."""
    _, roof_begin, roof_end, _ = car.cabin
    center = cabin.facets.mean(1)
    share = (center[:, 2] - car.hood) / (car.height - car.hood)
    along = center[:, 0] / car.length + 0.5
    edge = np.abs(center[:, 1]) / (car.width / 2)
    side = edge > 0.68
    pillars = (np.abs(along - (roof_begin + roof_end) / 2) < 0.012) | (
        np.abs(along - (roof_begin * 0.85 + roof_end * 0.15)) < 0.012
    )
    glass = (share > 0.10) & (share < 0.86) & ~(side & pillars) & (np.abs(edge - 0.70) > 0.025)
    glass &= side | (along < roof_begin) | (along > roof_end)
    if car.body == "van":
        glass &= along > 0.42
    cabin.colors[glass], cabin.gloss[glass] = GLASS, 2.0


def _mirror(car: Car, side: int) -> Mesh:
    u, v = np.linspace(0, np.pi, 9)[:, None], np.linspace(0, 2 * np.pi, 13)[None]
    place = (car.cabin[3] - 0.045 - 0.5) * car.length
    x = place + 0.07 * np.sin(u) * np.cos(v)
    z = car.hood + 0.06 + 0.075 * np.sin(u) * np.sin(v)
    y = side * (car.width / 2 * 0.93 + 0.10) + 0.10 * np.cos(u) * np.ones_like(v) * -1
    middle = (place, side * (car.width / 2 * 0.93 + 0.10), car.hood + 0.06)
    return _mesh(np.stack([x, y, z], axis=2), PAINTS[car.paint], 1.0, middle, nearer=0.5)


def _wheel(car: Car, along: float, side: int) -> list[Mesh]:
    angle = np.linspace(0, 2 * np.pi, 31)
    circle = np.stack([np.cos(angle), np.zeros_like(angle), np.sin(angle)], axis=1)
    center = np.array([along * car.length, side * (car.width / 2 * 0.965), car.wheel])
    inner = np.array([0, -side * 0.24, 0])
    tread = np.stack([center + car.wheel * circle, center + inner + car.wheel * circle])
    meshes = [_mesh(tread, RUBBER, 0.1, center + inner / 2)]
    for radius, out, color, gloss in _DISCS:
        middle = center + np.array([0, side * out, 0])
        ring = middle + radius * car.wheel * circle
        if radius > 1:
            ring = ring[circle[:, 2] >= -0.25]  # the arch is open below
        disc = np.stack([np.broadcast_to(middle, ring.shape), ring])
        meshes.append(_mesh(disc, color, gloss, center + inner, nearer=0.55))
    rim = meshes[3]
    rim.colors[np.arange(len(rim.colors)) % 5 >= 3] = SPOKES  # between the spokes
    return meshes


def car_mesh(car: Car) -> Mesh:
    """Build all facets of a car standing on z = 0, centered on x = y = 0."""
    body, cabin = _lower_body(car), _cabin(car)
    _fit_lamps(body, car)
    _glaze(cabin, car)
    wheels = [part for along in (-0.305, 0.315) for side in (-1, 1) for part in _wheel(car, along, side)]
    parts = [body, cabin, _mirror(car, -1), _mirror(car, 1), *wheels]
    return Mesh(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Mesh)))
