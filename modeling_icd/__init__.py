"""Automatic ICD coding: the models, registered with transformers' Auto classes and pipelines."""

from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification
from transformers.pipelines import PIPELINE_REGISTRY

from .attention_icd import LabelAttentionHead
from .configuration_icd import TASK, ICDConfig, LlamaICDConfig, LlamaMultiResCNNConfig
from .heads import HeadRow, Option, PooledHead, register_head
from .modeling_icd import (
    MODELS,
    ICDCodingOutput,
    LlamaForICDCoding,
    LlamaICDPreTrainedModel,
    LlamaMultiResCNNForICD,
    ModelForICDCoding,
)
from .multirescnn_icd import MultiResCNNHead
from .pipeline_icd import ICDCodingPipeline
from .versions_icd import VERSION


__version__ = VERSION

for _model in MODELS.values():
    AutoConfig.register(_model.config_class.model_type, _model.config_class)
    AutoModel.register(_model.config_class, _model)
    AutoModelForSequenceClassification.register(_model.config_class, _model)
PIPELINE_REGISTRY.register_pipeline(
    TASK, pipeline_class=ICDCodingPipeline, pt_model=AutoModelForSequenceClassification, type="text"
)

__all__ = [
    "HeadRow",
    "ICDCodingOutput",
    "ICDCodingPipeline",
    "ICDConfig",
    "LabelAttentionHead",
    "LlamaForICDCoding",
    "LlamaICDConfig",
    "LlamaICDPreTrainedModel",
    "LlamaMultiResCNNConfig",
    "LlamaMultiResCNNForICD",
    "ModelForICDCoding",
    "MultiResCNNHead",
    "Option",
    "PooledHead",
    "register_head",
]
