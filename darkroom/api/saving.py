"""Which pictures of a job become files, in which folders and under which names: as the job's options say.

Every folder lies in the data folder: the options that name one take nothing that leads out of it. Runs in worker
threads.
"""

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

from PIL import Image

from darkroom.api.convert import Prepared
from darkroom.api.shots import Shot
from darkroom.images import filenames, files
from darkroom.images.codecs import Format, encode, encode_image, fitting
from darkroom.jobs.spec import JobSpec
from darkroom.options.values import OptionValues
from darkroom.sampling.names import effective_scheduler, get_sampler
from darkroom.settings import Settings

_MEGABYTE = 2**20


def save_all(
    shots: Iterable[Shot], sheet: Shot | None, prepared: Prepared, settings: Settings, *, began: float | None = None
) -> None:
    """Write pictures and grid into the output folders; the job `began` at that time (POSIX; now if None).

    Raises OSError.
    """
    options, kind = prepared.options, prepared.spec.kind
    if options.samples_save:
        outdir = options.outdir_txt2img_samples if kind == "txt2img" else options.outdir_img2img_samples
        for shot in (shot for shot in shots if shot.saved):
            _save_shot(shot, settings.data_dir / outdir, prepared, began)
    if sheet and options.grid_save:
        outdir = options.outdir_txt2img_grids if kind == "txt2img" else options.outdir_img2img_grids
        _save_grid(sheet, settings.data_dir / outdir, prepared, began)


def _save_shot(shot: Shot, folder: Path, prepared: Prepared, began: float | None) -> None:
    options, facts = prepared.options, _facts(shot, prepared, began)
    pattern = options.samples_filename_pattern or ("[seed]" if options.save_to_dirs else "[seed]-[prompt_spaces]")
    data, extension = _file(shot, options, options.samples_format)
    path = files.save(
        data,
        _subfolder(folder, facts, options, wanted=options.save_to_dirs),
        decoration=filenames.file_stem(pattern, facts) + shot.suffix,
        extension=extension,
        numbered=options.save_images_add_number,
        replace=options.save_images_replace_action == "Replace",
    )
    if options.save_txt:
        files.write(f"{shot.text}\n".encode(), path.with_suffix(".txt"))
    _save_smaller(shot, path, len(data), options)


def _save_grid(sheet: Shot, folder: Path, prepared: Prepared, began: float | None) -> None:
    """Grids have short names: their number alone, unless the options ask for more."""
    options, facts = prepared.options, _facts(sheet, prepared, began, basename="grid")
    pattern = options.samples_filename_pattern or ("[seed]" if options.grid_save_to_dirs else "[seed]-[prompt_spaces]")
    data, extension = _file(sheet, options, options.grid_format)
    path = files.save(
        data,
        _subfolder(folder, facts, options, wanted=options.grid_save_to_dirs),
        decoration=filenames.file_stem(pattern, facts) if options.grid_extended_filename else "",
        extension=extension,
        basename="grid",
        digits=4,
        numbered=options.save_images_add_number,
        replace=options.save_images_replace_action == "Replace",
    )
    _save_smaller(sheet, path, len(data), options)


def _subfolder(folder: Path, facts: filenames.Facts, options: OptionValues, *, wanted: bool) -> Path:
    return folder.joinpath(*filenames.folders(options.directories_filename_pattern, facts)) if wanted else folder


def _file(shot: Shot, options: OptionValues, wanted: Format) -> tuple[bytes, Format]:
    """A picture as it is saved, and the format that was fit for it."""
    file_format = fitting(shot.picture, wanted)
    text = shot.text if options.enable_pnginfo else ""
    data = encode(shot.picture, file_format, text=text, quality=options.jpeg_quality, lossless=options.webp_lossless)
    return data, file_format


def _save_smaller(shot: Shot, path: Path, size_bytes: int, options: OptionValues) -> None:
    """Beside a large file a JPEG, no larger than the options say. A1111: made for a site with limits."""
    height, width = shot.picture.shape[:2]
    limit = max(options.target_side_length, 1)
    oversize = max(width, height) > limit
    if not options.export_for_4chan or not (oversize or size_bytes > options.img_downscale_threshold * _MEGABYTE):
        return
    picture = Image.fromarray(shot.picture)
    if oversize:
        scale = limit / max(width, height)
        size = max(round(width * scale), 1), max(round(height * scale), 1)
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    notes = {"parameters": shot.text} if options.enable_pnginfo else {}
    files.write(encode_image(picture, "jpg", notes=notes, quality=options.jpeg_quality), path.with_suffix(".jpg"))


def _facts(shot: Shot, prepared: Prepared, began: float | None, basename: str = "") -> filenames.Facts:
    spec, checkpoint, options = prepared.spec, prepared.checkpoint, prepared.options
    now = datetime.now().astimezone()
    return filenames.Facts(
        picture=shot.picture,
        seed=shot.seed,
        seeds=spec.seeds,
        place=shot.place,
        batch_size=spec.batch_size,
        n_iter=spec.n_iter,
        prompt=shot.prompt or spec.prompt,
        negative_prompt=spec.negative_prompt,
        plain_prompt=prepared.plain_prompt,
        styles=prepared.styles,
        steps=spec.steps,
        cfg_scale=spec.cfg_scale,
        sampler=spec.sampler,
        scheduler=effective_scheduler(get_sampler(spec.sampler), spec.scheduler),
        model_name=checkpoint.base,
        model_hash=checkpoint.short_hash or "",
        vae=spec.vae,
        clip_skip=spec.clip_skip,
        denoising=_strength(spec),
        job_began=now if began is None else datetime.fromtimestamp(began).astimezone(),
        now=now,
        basename=basename,
        max_words=options.directories_max_prompt_words,
    )


def _strength(spec: JobSpec) -> float | None:
    if spec.init:
        return spec.init.denoising_strength
    return spec.hires.denoising_strength if spec.hires else None
