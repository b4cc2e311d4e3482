"""Feed damaged files to whatever reads files of others.

``python tests/fuzz/fuzz.py TARGET --seconds 600`` changes sound files at random, again and again.
Only messages to the user may come out; what else does is kept in ``corpus/TARGET``, where
``test_corpus.py`` finds it. The same seed gives the same files.
"""

import argparse
import contextlib
import gzip
import hashlib
import json
import logging
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

import nibabel as nb
import numpy as np

from tumorreg_wf.errors import TumorregError

CORPUS = Path(__file__).parent / 'corpus'

#: Memory a reader may take (address space; torch alone has some GB of it), and CPU seconds.
MOST_MEMORY, MOST_SECONDS = 16 * 2**30, 20

#: What compressed files begin with.
GZIP = b'\x1f\x8b'

TOKENS = [
    *(b'\x00', b'\xff\xff', b'\xff\xff\xff\x7f', b'\x00\x00\x00\x80', b'\x00\x00\xc0\x7f'),
    *(b'-1', b'1e999', b'NaN', b'99999999999999999999', b'null', b'true', b'""', b'"*"'),
    *(b'{}', b'[]', b'[' * 2000, b'\t', b'\n', b'\r', b'"', b'\xef\xbb\xbf', b'\xc3\x28'),
    *(b'../../x', b'<script>', b'!!python/object/apply:os.system', b'&a [*a]', b'\\ud800'),
]


def sound_images():
    """NIfTI-1 and NIfTI-2, integers and floats, bare and compressed."""
    data = np.arange(120).reshape(4, 5, 6)
    affine = np.diag([2.0, 2, 3, 1])
    for kind in (nb.Nifti1Image, nb.Nifti2Image):
        for dtype in (np.uint8, np.int16, np.float32, np.float64):
            plain = kind(data.astype(dtype), affine).to_bytes()
            yield plain
            yield gzip.compress(plain, mtime=0)


def read_images(content, folder):
    from tumorreg_wf.images import load_image
    from tumorreg_wf.reading import image_notes, read_image

    path = folder / ('x.nii.gz' if content[:2] == GZIP else 'x.nii')
    path.write_bytes(content)
    image_notes(*read_image(path))
    assert np.isfinite(load_image(path).get_fdata()).all()


def sound_descriptions():
    yield b'{"Name": "x", "BIDSVersion": "1.10.0", "Authors": ["A", "B"], "x": {"y": [1, null]}}'


def read_descriptions(content, folder):
    from tumorreg_wf.bids import check_dataset

    (folder / 'dataset_description.json').write_bytes(content)
    check_dataset(folder)


def sound_filters():
    yield b'{"t1w": {"session": "1", "run": [1, 2], "acquisition": null}, "flair": {}}'
    yield b'{"tumor": {"label": "*", "extension": ".nii"}, "brain": {"suffix": "mask"}}'


def read_filters(content, folder, layouts=[]):  # noqa: B006
    from tumorreg_wf.bids import collect_anatomies, open_layout
    from tumorreg_wf.cli.parser import _filters

    if not layouts:
        anat = Path(tempfile.mkdtemp()) / 'sub-01' / 'ses-1' / 'anat'
        anat.mkdir(parents=True)
        for name in ('run-1_T1w', 'acq-x_run-2_T1w', 'FLAIR', 'label-tumor_mask'):
            (anat / f'sub-01_ses-1_{name}.nii.gz').touch()
        text = '{"Name": "x", "BIDSVersion": "1.10.0"}'
        (anat.parents[2] / 'dataset_description.json').write_text(text)
        layouts.append(open_layout(anat.parents[2], ['01']))
    path = folder / 'filters.json'
    path.write_bytes(content)
    filters = _filters(str(path))
    collect_anatomies(layouts[0], ['01'], filters=filters)


def sound_tables():
    yield b'index\tname\themisphere\n1\tfront L\tL\n2\tfront R\tR\n1000\tn/a\tB\n'


def read_tables(content, folder):
    from tumorreg_wf.measures import measure_regions, read_lut

    path = folder / 'x.tsv'
    path.write_bytes(content)
    labels = np.arange(27).reshape(3, 3, 3)
    table = measure_regions(labels, labels > 20, np.ones(3), read_lut(path), labels > 0)
    table.to_csv(folder / 'y.tsv', sep='\t', index=False)


def sound_groups():
    """A table of a patient, its sidecar after an empty line."""
    from tumorreg_wf.workflows.outputs import morph_columns

    head, row = 'volume_mm3\themisphere\tn_regions\tcentroid_x', '1234.5\tL\t3\t-20.5'
    yield f'{head}\n{row}\n\n{json.dumps(morph_columns("T"))}'.encode()


def read_groups(content, folder):
    from tumorreg_wf.reports.group import find_tables, read_tables, write_table
    from tumorreg_wf.reports.group_page import write_group_report

    anat = folder / 'sub-01' / 'anat'
    anat.mkdir(parents=True, exist_ok=True)
    table, _, sidecar = content.partition(b'\n\n')
    (anat / 'sub-01_desc-tumor_morph.tsv').write_bytes(table)
    (anat / 'sub-01_desc-tumor_morph.json').write_bytes(sidecar)
    group, dictionary = read_tables(find_tables(folder))
    write_table(group, dictionary, folder)
    page = write_group_report(folder, group, [], {}, 'x').read_text(encoding='utf-8')
    assert page.count('<script>') == 1


def sound_weights():
    import torch

    from tumorreg_wf.models.networks import save_network
    from tumorreg_wf.models.unet import UNet

    torch.manual_seed(0)
    config = {'width': 1, 'levels': 1}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'x.safetensors'
        facts = {'name': 'x', 'task': 'segmentation', 'config': config, 'spacing': 2.0}
        save_network(UNet(**config), path, **facts)
        yield path.read_bytes()


def read_weights(content, folder):
    from tumorreg_wf.models.networks import load_network
    from tumorreg_wf.weights import find_weights

    path = folder / 'x.safetensors'
    path.write_bytes(content)
    load_network(find_weights('segmentation', path))


def sound_plugins():
    yield b'plugin: MultiProc\nplugin_args: {n_procs: 2, memory_gb: 4}\n'
    yield b'plugin: Linear\n'


def read_plugins(content, folder):
    from tumorreg_wf.cli.plugins import read_plugin

    path = folder / 'plugin.yml'
    path.write_bytes(content)
    read_plugin(path)


#: What reads files, and the sound files to begin with.
TARGETS = {
    'images': (read_images, sound_images),
    'descriptions': (read_descriptions, sound_descriptions),
    'filters': (read_filters, sound_filters),
    'tables': (read_tables, sound_tables),
    'groups': (read_groups, sound_groups),
    'weights': (read_weights, sound_weights),
    'plugins': (read_plugins, sound_plugins),
}


def change(content, rng):
    """Damage some places of a file, most of them near its beginning, where headers are.

    Of a compressed file most often what is in it: the rest is for gzip to refuse.
    """
    if content[:2] == GZIP and rng.random() < 0.8:
        return gzip.compress(change(gzip.decompress(content), rng), mtime=0)
    content = bytearray(content)
    for _ in range(rng.choice([1, 1, 1, 2, 4, 16])):
        at = min(int(rng.expovariate(1 / rng.choice([20, 200, 2000]))), len(content))
        length = rng.choice([1, 1, 2, 4, 8, 64])
        kind = rng.randrange(7)
        if kind == 0 and at < len(content):
            content[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            content[at : at + length] = rng.randbytes(length)
        elif kind == 2:
            token = rng.choice(TOKENS)
            content[at : at + len(token)] = token
        elif kind == 3:
            content[at:at] = rng.choice(TOKENS)
        elif kind == 4:
            del content[at : at + length]
        elif kind == 5:
            content[at:at] = content[at : at + length] * rng.choice([1, 2, 100])
        elif rng.random() < 0.3:
            del content[rng.randrange(len(content) + 1) :]
    return bytes(content)


class Slow(BaseException):
    """No reader takes it for a fault of the file."""


def outcome(read, content):
    """Read a file: 'read', 'refused' with a message, or the traceback of what else came out."""
    with tempfile.TemporaryDirectory() as folder:
        signal.signal(signal.SIGPROF, _too_slow)
        signal.setitimer(signal.ITIMER_PROF, MOST_SECONDS)
        try:
            read(content, Path(folder))
        except (TumorregError, argparse.ArgumentTypeError) as message:
            assert str(message)
            # a header of a few bytes must be refused before memory is asked for
            return traceback.format_exc() if _wants_memory(message) else 'refused'
        except (Exception, Slow):
            return traceback.format_exc()
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
    return 'read'


def _wants_memory(error):
    while error is not None and not isinstance(error, MemoryError):
        error = error.__context__
    return error is not None


def _too_slow(*_):
    raise Slow(f'took more than {MOST_SECONDS} s')


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('target', choices=TARGETS)
    parser.add_argument('--seconds', type=float, default=600)
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    logging.disable()  # nibabel's remarks on each header
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    read, sound = TARGETS[args.target]
    seeds, rng = list(sound()), random.Random(args.seed)
    for content in seeds:  # imports what there is to import, too
        with tempfile.TemporaryDirectory() as folder:
            read(content, Path(folder))
    known: set[str] = set()
    count, refused, until = 0, 0, time.monotonic() + args.seconds
    while time.monotonic() < until:
        content = change(rng.choice(seeds), rng)
        with contextlib.redirect_stderr(None):
            said = outcome(read, content)
        count += 1
        refused += said == 'refused'
        if said in ('read', 'refused'):
            continue
        # one file for each place in the code
        place = '\n'.join(line for line in said.splitlines() if 'File "' in line)
        if place in known:
            continue
        known.add(place)
        name = hashlib.sha256(content).hexdigest()[:12]
        (CORPUS / args.target).mkdir(parents=True, exist_ok=True)
        (CORPUS / args.target / name).write_bytes(content)
        print(f'{name}, file {count}:\n{said}', flush=True)
    print(
        f'{args.target}: {count} files in {args.seconds:.0f} s, {refused} refused, '
        f'{len(known)} found',
        flush=True,
    )
    return 1 if known else 0


if __name__ == '__main__':
    sys.exit(main())
