"""Pictures in, pictures out: tiles through a graph, alpha apart, orientation applied. Memory grows with the result."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from local_backend.batcher import Batch, Stopped, explain
from local_backend.input import invalid
from local_backend.job import Work
from local_backend.kinds.tile import Tile, cut
from local_backend.manifest import ImageParameters
from local_backend.media import (
    MAX_RESULT_BYTES,
    MediaRefused,
    decode_data_uri,
    decode_image,
    encode_data_uri,
    encode_image,
    fits_format,
)
from local_backend.package import Package
from local_backend.session import Array, Device, Session


class ImageToImage:
    """One package of kind image-to-image."""

    max_cost = 0.0  # jobs run one by one: each already fills the machine

    def __init__(self, package: Package, *, device: Device, threads: int) -> None:
        parameters = package.manifest.parameters
        assert isinstance(parameters, ImageParameters)  # noqa: S101 - the manifest's kind decides both
        self._parameters = parameters
        self._sessions = {
            graph.scale: Session(package.path(graph.file), device=device, threads=threads)
            for graph in parameters.graphs
        }
        for session in self._sessions.values():
            self._check_graph(session)
        self.devices: tuple[str, ...] = tuple(session.device for session in self._sessions.values())
        self._default_scale = parameters.graphs[0].scale

    def _check_graph(self, session: Session) -> None:
        (graph_input, *more), (output, *_) = session.inputs, session.outputs
        fits = not more and graph_input.dtype == output.dtype == self._parameters.dtype
        if not fits or len(graph_input.shape) != 4:
            raise ValueError(
                f"the graph takes {graph_input.dtype} of rank {len(graph_input.shape)} and gives {output.dtype}; "
                f"the manifest says one {self._parameters.dtype} tensor of rank 4"
            )

    def prepare(self, input: dict[str, Any]) -> Work:
        """Decodes the picture once to see that it is sound: a damaged one is the caller's 422, not a failed run."""
        scale = input.get("scale", self._default_scale)
        name = input.get("format", "png")
        if scale not in self._sessions:
            raise invalid("scale", f"this model scales by {sorted(self._sessions)}", "enum")
        max_pixels = self._parameters.max_output_pixels // (scale * scale)
        try:
            content = decode_data_uri(input["image"])
            image = decode_image(content, max_pixels=max_pixels)
        except MediaRefused as refused:
            raise invalid("image", f"image {refused}") from None
        width, height = image.width * scale, image.height * scale
        if not fits_format(width, height, name):
            raise invalid("format", f"{name} holds no picture of {width} x {height} pixels")
        return Work(
            payload=(content, scale, name, max_pixels),
            cost=width * height / 1e6,
            size_bytes=len(content),
        )

    def run(self, batch: Batch) -> None:
        for number, work in batch.wanted():
            try:
                self._run_one(batch, number, work)
            except Stopped:
                raise
            except Exception as error:  # the model's failure, whatever it is, belongs to its job
                batch.fail(number, explain(error))

    def _run_one(self, batch: Batch, number: int, work: Work) -> None:
        content, scale, name, max_pixels = work.payload
        session = self._sessions[scale]
        image = decode_image(content, max_pixels=max_pixels)
        profile = image.info.get("icc_profile")
        tiles = list(cut(image.width, image.height, size=self._parameters.tile, overlap=self._parameters.overlap))
        batch.log(
            number,
            f"{image.width} x {image.height} pixels, scale {scale}, {len(tiles)} tiles, on {session.device.upper()}",
        )
        # Transparent pixels may have any colour: resampled as they are, it would bleed into the visible ones.
        pixels = np.asarray(image.convert("RGBa") if image.mode == "RGBA" else image)
        result = np.empty((image.height * scale, image.width * scale, pixels.shape[2]), np.uint8)
        for done, tile in enumerate(tiles, 1):
            part = pixels[tile.outer_top : tile.outer_bottom, tile.outer_left : tile.outer_right]
            self._place(batch, session, part, tile, scale, result)
            batch.progress(number, done, len(tiles), "tiles")
        enlarged = _picture(result)
        encoded, media_type = encode_image(enlarged, name, profile)
        if len(encoded) > MAX_RESULT_BYTES:
            batch.fail(number, f"the result has {len(encoded)} bytes as {name}; ask for jpeg or webp, or a lower scale")
            return
        output = encode_data_uri(encoded, media_type)
        megapixels = round(enlarged.width * enlarged.height / 1e6, 6)
        batch.succeed(number, output, len(output), image_output_count=1, image_output_megapixel_count=megapixels)

    def _place(self, batch: Batch, session: Session, part: Array, tile: Tile, scale: int, result: Array) -> None:
        """Run one tile, and lay the part it is responsible for into the result."""
        rows = slice((tile.top - tile.outer_top) * scale, (tile.bottom - tile.outer_top) * scale)
        columns = slice((tile.left - tile.outer_left) * scale, (tile.right - tile.outer_left) * scale)
        target = result[tile.top * scale : tile.bottom * scale, tile.left * scale : tile.right * scale]
        target[..., :3] = self._through(batch, session, part[..., :3], scale)[rows, columns]
        if part.shape[2] == 4:
            alpha = np.repeat(part[..., 3:], 3, axis=2)
            target[..., 3] = self._through(batch, session, alpha, scale)[rows, columns, 0]

    def _through(self, batch: Batch, session: Session, part: Array, scale: int) -> Array:
        """`[h, w, 3]` uint8 through the graph: `[h*scale, w*scale, 3]` uint8."""
        parameters = self._parameters
        feed = part[None] if parameters.layout == "nhwc" else part.transpose(2, 0, 1)[None]
        if parameters.dtype == "float32":
            feed = feed.astype(np.float32) * np.float32(parameters.white / 255)
        (output,) = batch.run(session, {session.inputs[0].name: np.ascontiguousarray(feed)}, [session.outputs[0].name])
        if parameters.layout == "nchw" and output.ndim == 4:
            output = output.transpose(0, 2, 3, 1)
        expected = (1, part.shape[0] * scale, part.shape[1] * scale, 3)
        if output.shape != expected:
            raise ValueError(f"the graph gave shape {output.shape}, its manifest promises {expected}")
        if parameters.dtype == "float32":
            output = np.clip(np.floor(output * np.float32(255 / parameters.white) + 0.5), 0, 255).astype(np.uint8)
        whole: Array = output[0]
        return whole


def _picture(pixels: Array) -> Image.Image:
    height, width, channels = pixels.shape
    if channels == 3:
        return Image.frombuffer("RGB", (width, height), pixels, "raw", "RGB", 0, 1)
    return Image.frombuffer("RGBa", (width, height), pixels, "raw", "RGBa", 0, 1).convert("RGBA")
