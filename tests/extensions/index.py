"""An index in memory, pickled to the file of `pickle://<path>`."""

import contextlib
import dataclasses
import pathlib
import pickle

import numpy as np

from apparel_embed.common.errors import UserError
from apparel_embed.search.index import Hit, check_embeddings, nearest_groups


@contextlib.contextmanager
def open_index(uri, access, *, to_read):
    index = MemoryIndex(pathlib.Path(uri.removeprefix("pickle://")))
    yield index
    if not to_read:
        index.close()


class MemoryIndex:
    """An exact index in memory; `close` writes it to the file, if any."""

    def __init__(self, file=None):
        self._file = file
        self._versions, self._rows, self._current = {}, {}, None
        if file and file.exists():
            self._versions, self._rows, self._current = pickle.loads(file.read_bytes())

    def close(self):
        if self._file:
            kept = self._versions, self._rows, self._current
            self._file.write_bytes(pickle.dumps(kept))

    def current(self):
        return self._versions.get(self._current)

    def version(self, model):
        return self._versions.get(model)

    def begin(self, version):
        self._versions.setdefault(version.model, version)
        self._rows.setdefault(version.model, {})
        return version

    def upsert(self, version, images, embeddings):
        check_embeddings(version, images, embeddings)
        rows = {one.key: (one, vector) for one, vector in zip(images, embeddings)}
        self._rows[version.model].update(rows)

    def delete(self, version, keys):
        for key in keys:
            self._rows[version.model].pop(key, None)

    def finish(self, version):
        images = [one for one, _ in self._rows[version.model].values()]
        verticals = tuple(sorted({one.vertical for one in images}))
        counted = {"complete": True, "images": len(images), "verticals": verticals}
        self._versions[version.model] = dataclasses.replace(version, **counted)
        return self._versions[version.model]

    def change(self, version, images, embeddings, removed):
        self.upsert(version, images, embeddings)
        self.delete(version, removed)
        return self.finish(version)

    def roll_back(self, version, edition):
        raise UserError(f"{self._file}: keeps no editions")

    def switch(self, version):
        self._current = version.model

    def keys(self, version, *, of_dataset=False, images=None, items=None):
        for one, _ in self._rows[version.model].values():
            named = images is None or one.key in images or one.image in images
            if (
                named
                and (items is None or one.item in items)
                and (one.record >= 0 or not of_dataset)
            ):
                yield one.key

    def find(self, version, keys, contents=()):
        rows = self._rows[version.model].values()
        return [row for row in rows if row[0].key in keys or row[0].content in contents]

    def search(self, version, embedding, k, *, vertical=None, by_item=True, without=""):
        verticals = (vertical,) if isinstance(vertical, str) else vertical
        hits = sorted(
            (
                Hit(one, float(np.linalg.norm(vector - embedding)))
                for one, vector in self._rows[version.model].values()
                if one.key != without and (verticals is None or one.vertical in verticals)
            ),
            key=lambda hit: hit.distance,
        )
        return nearest_groups(lambda limit, unwanted, effort: hits[:limit], k, by_item=by_item)
