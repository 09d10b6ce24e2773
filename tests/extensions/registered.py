"""Registers the extensions; outside tests these lines would be in the registries."""

from apparel_embed.data.importers.registry import FORMATS
from apparel_embed.losses.registry import LOSSES
from apparel_embed.models.backbones import BACKBONES
from apparel_embed.runs.stages.registry import STAGES
from apparel_embed.search.index import INDEXES
from extensions import backbone, layout, loss, stage

BACKBONES["one_convolution"] = backbone.BACKBONE
LOSSES["info_nce"] = loss.LOSS
FORMATS["listing"] = layout.FORMAT
INDEXES["pickle://"] = "extensions.index"
STAGES.append(stage.KIND)
