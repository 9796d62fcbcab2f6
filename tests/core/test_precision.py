import pytest

from ffnet_deploy.core.errors import ArtifactError, OptionError
from ffnet_deploy.core.precision import Precision, PrecisionRecord


def test_record_survives_the_metadata():
    record = PrecisionRecord(Precision.INT8, Precision.FP16, ("/stem/Conv",), ("/head/Softmax",))
    assert PrecisionRecord.from_json(record.to_json()) == record


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"precision": "int4", "base": "fp16", "quantized": [], "float32": []}']
)
def test_damaged_record_is_refused(text):
    with pytest.raises(ArtifactError, match="export it again"):
        PrecisionRecord.from_json(text)


def test_contradictions_are_refused():
    with pytest.raises(OptionError, match="no quantised layers"):
        PrecisionRecord(Precision.FP16, Precision.FP16, quantized=("conv",))
    with pytest.raises(OptionError, match="not int8"):
        PrecisionRecord(Precision.INT8, Precision.INT8)
