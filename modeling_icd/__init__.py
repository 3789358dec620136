"""Automatic ICD coding with Llama: the models, registered with transformers' Auto classes and pipelines."""

from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification
from transformers.pipelines import PIPELINE_REGISTRY

from .configuration_icd import VERSION, LlamaICDConfig, LlamaMultiResCNNConfig
from .heads import LabelAttentionHead, MultiResCNNHead, PooledHead
from .modeling_icd import ICDCodingOutput, LlamaForICDCoding, LlamaICDPreTrainedModel, LlamaMultiResCNNForICD
from .pipeline_icd import TASK, ICDCodingPipeline


__version__ = VERSION

for _config, _model in ((LlamaICDConfig, LlamaForICDCoding), (LlamaMultiResCNNConfig, LlamaMultiResCNNForICD)):
    AutoConfig.register(_config.model_type, _config)
    AutoModel.register(_config, _model)
    AutoModelForSequenceClassification.register(_config, _model)
PIPELINE_REGISTRY.register_pipeline(
    TASK, pipeline_class=ICDCodingPipeline, pt_model=AutoModelForSequenceClassification, type="text"
)

__all__ = [
    "ICDCodingOutput",
    "ICDCodingPipeline",
    "LabelAttentionHead",
    "LlamaForICDCoding",
    "LlamaICDConfig",
    "LlamaICDPreTrainedModel",
    "LlamaMultiResCNNConfig",
    "LlamaMultiResCNNForICD",
    "MultiResCNNHead",
    "PooledHead",
]
