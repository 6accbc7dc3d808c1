"""A small renderer: a car on a turntable in a photo studio, with its exact mask. numpy and cv2 only.

Facets are drawn from back to front (painter's algorithm), the car at twice the size and averaged. The same seed gives
the same picture.
"""

import cv2
import numpy as np

from scenes.cars import Car, Mesh, car_mesh, power

cv2.setNumThreads(0)  # pictures are rendered side by side

SUPERSAMPLING = 2
VIEWS = 16


class Camera:
    """A pinhole camera that looks at the turntable from 9.5 meters."""

    def __init__(self, height: int, width: int) -> None:
        self.place = np.array([0.0, -9.5, 2.0])
        aim = np.array([0.0, 0.0, 0.72]) - self.place
        self.forward = aim / np.linalg.norm(aim)
        self.right = np.cross(self.forward, [0, 0, 1.0])
        self.right /= np.linalg.norm(self.right)
        self.up = np.cross(self.right, self.forward)
        self.focal, self.center = 1.42 * width, np.array([width / 2, height * 0.54])

    def project(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Turn points (..., 3) into pixels (..., 2) and distances along the view (...)."""
        relative = points - self.place
        depth = relative @ self.forward
        x, y = relative @ self.right / depth, relative @ self.up / depth
        return self.center + self.focal * np.stack([x, -y], axis=-1), depth


def _environment(direction: np.ndarray) -> np.ndarray:
    """See the studio along `direction` (F, 3): brightness, 0 to 1, of soft boxes above, white walls, a gray floor."""
    z = direction[:, 2]
    wall = 0.72 + 0.1 * direction[:, 0]
    lit = np.where(z > 0.62, 1.25, wall)
    return np.where(z < 0.02, 0.42 + 0.2 * np.clip(-z, 0, 1), np.where(z < 0.14, 0.36, lit))


def _shade(facets: np.ndarray, colors: np.ndarray, gloss: np.ndarray, camera: Camera) -> tuple[np.ndarray, np.ndarray]:
    """Light the facets: their colors (F, 3), and which of them face the camera (F,)."""
    normal = np.cross(facets[:, 2] - facets[:, 0], facets[:, 3] - facets[:, 1])
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-9)
    view = facets.mean(1) - camera.place
    view /= np.linalg.norm(view, axis=1, keepdims=True)
    cosine = -(normal * view).sum(1)
    facing = cosine > 0
    light = np.array([-0.45, -0.55, 0.70])
    diffuse = 0.40 + 0.38 * np.clip(normal[:, 2], -0.3, 1) + 0.32 * np.clip(normal @ light, 0, 1)
    mirrored = view + 2 * cosine[:, None] * normal
    fresnel = np.clip(0.05 + 0.6 * (1 - np.clip(cosine, 0, 1)) ** 4, 0, 0.6) * gloss
    dulled = colors * diffuse[:, None] * (1 - 0.6 * np.clip(fresnel, 0, 1))[:, None]
    return np.clip(dulled + (230 * fresnel * _environment(mirrored))[:, None], 0, 255), facing


def _paint(mesh: Mesh, facets: np.ndarray, camera: Camera, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Draw facets back to front on black: colors uint8 (H, W, 3), and 255 where there is any, uint8 (H, W)."""
    canvas, silhouette = np.zeros((*shape, 3), np.uint8), np.zeros(shape, np.uint8)
    colors, facing = _shade(facets, mesh.colors, mesh.gloss, camera)
    pixels, depth = camera.project(facets)
    corners = np.round(pixels * 16).astype(np.int32)  # four bits below the pixel
    order = np.argsort(mesh.nearer - depth.mean(1), kind="stable")
    order = order[facing[order]]
    for quad, color in zip(corners[order], colors[order].tolist(), strict=True):
        cv2.fillConvexPoly(canvas, quad, color, lineType=cv2.LINE_8, shift=4)
        cv2.fillConvexPoly(silhouette, quad, 255, lineType=cv2.LINE_8, shift=4)
    return canvas, silhouette


def _studio(height: int, width: int, camera: Camera, random: np.random.Generator) -> np.ndarray:
    """Draw the empty studio, float32 (H, W, 3): a white wall running into a gray floor, a turntable, uneven light."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    horizon = height * (0.43 + 0.01 * random.standard_normal())
    floor = 1 / (1 + np.exp(-(y - horizon) / (0.035 * height)))
    wall = 238 - 10 * ((x / width - 0.5) * 2) ** 2 - 8 * (1 - y / height)
    ground = 204 - 30 * ((y - horizon) / height) - 14 * ((x / width - 0.5) * 2) ** 2
    gray = wall * (1 - floor) + ground * floor
    angle = np.linspace(0, 2 * np.pi, 181)
    for radius, shade in ((3.05, -14.0), (3.0, 9.0)):
        rim = np.stack([radius * np.cos(angle), radius * np.sin(angle), np.zeros_like(angle)], axis=1)
        disc = np.zeros((height, width), np.float32)
        cv2.fillPoly(disc, [np.round(camera.project(rim)[0] * 16).astype(np.int32)], 1.0, lineType=cv2.LINE_8, shift=4)
        gray += shade * disc
    uneven = cv2.resize(random.normal(0, 3, (4, 6)).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    tint = np.array([1.0, 0.997, 0.985]) + random.normal(0, 0.004, 3)
    return ((gray + uneven)[..., None] * tint).astype(np.float32)


def _shadow(car: Car, place: np.ndarray, turn: np.ndarray, camera: Camera, shape: tuple[int, int]) -> np.ndarray:
    """Darken the floor under and around the car: float32 (H, W) in [0, 1]."""
    dark = np.zeros(shape, np.float32)
    corner = np.linspace(0, 2 * np.pi, 73)
    outline = np.stack([power(np.cos(corner), 0.4), power(np.sin(corner), 0.4), np.zeros_like(corner)], axis=1)
    for grow, strength, blur in ((1.16, 0.22, 0.030), (1.0, 0.42, 0.012), (0.92, 0.30, 0.005)):
        foot = outline * np.array([car.length / 2, car.width / 2, 0]) * grow @ turn.T + place
        layer = np.zeros(shape, np.float32)
        cv2.fillPoly(layer, [np.round(camera.project(foot)[0] * 16).astype(np.int32)], strength, shift=4)
        dark = np.maximum(dark, cv2.GaussianBlur(layer, (0, 0), blur * shape[1]))
    return dark


def render(car: Car, view: int, height: int, width: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Render view 1 to 16 of a car: RGB uint8 (H, W, 3) and its mask, 0/1 (H, W): pixels that it covers by half."""
    random = np.random.default_rng([seed, view, *car.paint.encode(), *car.body.encode()])
    camera, fine = Camera(height, width), Camera(height * SUPERSAMPLING, width * SUPERSAMPLING)
    angle = np.deg2rad(car.turn + 360 / VIEWS * (view - 1))
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    place = np.array([*car.offset, 0.0])
    mesh = car_mesh(car)
    facets = mesh.facets @ turn.T + place
    picture = _studio(height, width, camera, random)
    _reflect(picture, mesh, facets, camera)
    picture *= 1 - _shadow(car, place, turn, camera, (height, width))[..., None]
    colors, silhouette = _paint(mesh, facets, fine, (height * SUPERSAMPLING, width * SUPERSAMPLING))
    colors = cv2.resize(colors, (width, height), interpolation=cv2.INTER_AREA)
    cover = cv2.resize(silhouette, (width, height), interpolation=cv2.INTER_AREA)
    picture *= 1 - cover[..., None] / np.float32(255)
    picture += colors
    picture = cv2.GaussianBlur(picture, (0, 0), 0.5 * width / 959 + 0.1)
    picture += random.normal(0, 2.0, picture.shape).astype(np.float32)
    return np.clip(picture + 0.5, 0, 255).astype(np.uint8), (cover >= 128).astype(np.uint8)


def _reflect(picture: np.ndarray, mesh: Mesh, facets: np.ndarray, camera: Camera) -> None:
    """Mirror the car in the polished floor, fading with the distance from it."""
    below = (facets * np.array([1, 1, -1]))[:, ::-1]
    mirrored, silhouette = _paint(mesh, below, camera, picture.shape[:2])
    rows, blur = np.flatnonzero(silhouette.any(1)), 0.002 * picture.shape[1]
    fade = np.clip(1 - (np.arange(picture.shape[0]) - rows[0]) / (0.8 * len(rows)), 0, 1)[:, None]
    strength = cv2.GaussianBlur((silhouette / 255 * fade * 0.26).astype(np.float32), (0, 0), blur)[..., None]
    picture += strength * (cv2.GaussianBlur(mirrored, (0, 0), blur) - picture)
