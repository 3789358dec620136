"""Automatic ICD coding: the models, registered with transformers' Auto classes and pipelines."""

from typing import Any

from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification
from transformers.pipelines import PIPELINE_REGISTRY

from .attention_icd import LabelAttentionHead
from .base_configuration_icd import TASK
from .comparators_icd import CAMLHead, CNNHead, CrossAttentionHead, JointLAATHead, LAATHead
from .configuration_icd import (
    CAMLConfig,
    CNNConfig,
    GRUConfig,
    ICDConfig,
    LAATConfig,
    LlamaICDConfig,
    LlamaMultiResCNNConfig,
    MultiResCNNConfig,
)
from .fusion_icd import FusionConfig, FusionForICD
from .generative_icd import GenerativeConfig, GenerativeForICD
from .heads import HeadRow, Option, register_head
from .modeling_icd import (
    MODELS,
    CAMLForICD,
    CNNForICD,
    GRUForICD,
    ICDCodingOutput,
    LAATForICD,
    LlamaForICDCoding,
    LlamaICDPreTrainedModel,
    LlamaMultiResCNNForICD,
    ModelForICDCoding,
    MultiResCNNForICD,
)
from .multirescnn_icd import MultiResCNNHead
from .pipeline_icd import ICDCodingPipeline
from .pooled_icd import PooledHead
from .terms_icd import TermsConfig, TermsForICD
from .versions_icd import VERSION
from .words_icd import WordReader, WordReaderConfig


__version__ = VERSION

_models: list[Any] = [*MODELS.values(), TermsForICD, FusionForICD]
for _model in _models:
    AutoConfig.register(_model.config_class.model_type, _model.config_class)
    AutoModel.register(_model.config_class, _model)
    AutoModelForSequenceClassification.register(_model.config_class, _model)
PIPELINE_REGISTRY.register_pipeline(
    TASK, pipeline_class=ICDCodingPipeline, pt_model=AutoModelForSequenceClassification, type="text"
)

__all__ = [
    "CAMLConfig",
    "CAMLForICD",
    "CAMLHead",
    "CNNConfig",
    "CNNForICD",
    "CNNHead",
    "CrossAttentionHead",
    "FusionConfig",
    "FusionForICD",
    "GRUConfig",
    "GRUForICD",
    "GenerativeConfig",
    "GenerativeForICD",
    "HeadRow",
    "ICDCodingOutput",
    "ICDCodingPipeline",
    "ICDConfig",
    "JointLAATHead",
    "LAATConfig",
    "LAATForICD",
    "LAATHead",
    "LabelAttentionHead",
    "LlamaForICDCoding",
    "LlamaICDConfig",
    "LlamaICDPreTrainedModel",
    "LlamaMultiResCNNConfig",
    "LlamaMultiResCNNForICD",
    "ModelForICDCoding",
    "MultiResCNNConfig",
    "MultiResCNNForICD",
    "MultiResCNNHead",
    "Option",
    "PooledHead",
    "TermsConfig",
    "TermsForICD",
    "WordReader",
    "WordReaderConfig",
    "register_head",
]
