"""What an index consists of: versions of the model, pictures, and hits."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from apparel_embed.common.settings import setting

INDEX_KINDS = ("FLAT", "IVF_FLAT", "HNSW")
# Most candidates that Milvus takes in a search of HNSW.
LARGEST_EF = 32_768


@dataclasses.dataclass(frozen=True)
class IndexSettings:
    """How vectors are kept."""

    kind: str = setting(
        "FLAT",
        "FLAT looks at every vector and misses none; IVF_FLAT and HNSW look at some",
        choices=INDEX_KINDS,
        flag="index_kind",
    )
    hnsw_m: int = setting(16, "links of a vector in HNSW", 2, 2048)
    hnsw_ef_construction: int = setting(
        200, "candidates while HNSW is built", 1, 32768, seldom=True
    )
    hnsw_ef: int = setting(
        128,
        "candidates of a search in HNSW; at least as many as hits are asked for are taken",
        1,
        32768,
    )
    ivf_lists: int = setting(128, "clusters of IVF_FLAT", 1, 65536, seldom=True)
    ivf_probes: int = setting(
        32, "clusters that a search in IVF_FLAT looks through", 1, 65536, seldom=True
    )

    def build_parameters(self) -> dict[str, int]:
        """Returns Milvus's parameters of building."""
        return {
            "FLAT": {},
            "IVF_FLAT": {"nlist": self.ivf_lists},
            "HNSW": {"M": self.hnsw_m, "efConstruction": self.hnsw_ef_construction},
        }[self.kind]

    @property
    def efforts(self) -> int:
        """How many efforts of a search there are; the greatest misses nothing.

        HNSW has one beyond its parameters, for no parameter makes a graph lead everywhere.
        """
        return len(self.search_parameters(1)) + (self.kind == "HNSW")

    def search_parameters(self, limit: int) -> list[dict[str, int]]:
        """Returns Milvus's parameters of a search for some pictures, by growing effort."""
        by_kind: dict[str, list[dict[str, int]]] = {
            "FLAT": [{}],
            "IVF_FLAT": [
                {"nprobe": min(self.ivf_probes, self.ivf_lists)},
                {"nprobe": self.ivf_lists},
            ],
            "HNSW": [{"ef": max(self.hnsw_ef, limit)}, {"ef": LARGEST_EF}],
        }
        return by_kind[self.kind]


@dataclasses.dataclass(frozen=True)
class Version:
    """One model's collection.

    Attributes:
      model: fingerprint of the model.
      dim: length of an embedding.
      complete: whether it was filled to the end at least once.
      pictures_of: fingerprint of what `record` counts in, such as a prepared dataset; "" if none.
      verticals: names, sorted.
      pictures: how many there are.
      settings: how vectors are kept.
    """

    model: str
    dim: int
    complete: bool = False
    pictures_of: str = ""
    verticals: tuple[str, ...] = ()
    pictures: int = 0
    settings: IndexSettings = IndexSettings()

    @property
    def collection(self) -> str:
        """Name of the collection."""
        return collection_name(self.model)


@dataclasses.dataclass(frozen=True)
class IndexedPicture:
    """A picture as it is kept beside its embedding.

    Attributes:
      key: identifies the picture: 32 hexadecimal digits.
      picture: path or URI, as the manifest has it.
      item: id of the garment.
      vertical: name.
      record: number in the prepared dataset, or -1.
    """

    key: str
    picture: str
    item: str
    vertical: str
    record: int = -1


@dataclasses.dataclass(frozen=True)
class Hit:
    """A picture that was found.

    Attributes:
      picture: which.
      distance: Euclidean between unit vectors, 0 to 2.
    """

    picture: IndexedPicture
    distance: float


def collection_name(model: str) -> str:
    """Returns the name of a model's collection.

    Args:
      model: its fingerprint, hexadecimal.
    """
    return f"pictures_{model[:32]}"


def unknown_verticals(version: Version, known: Sequence[str]) -> tuple[str, ...]:
    """Returns the verticals of an index that a model has never seen.

    Args:
      version: of the index.
      known: verticals that the model knows; () if that is not known.
    """
    return tuple(name for name in version.verticals if known and name not in known)
