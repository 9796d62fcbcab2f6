import pytest

from ffnet_deploy.core.errors import ArtifactError, OptionError
from ffnet_deploy.core.precision import Hardware, Precision, PrecisionRecord


def test_record_survives_the_metadata():
    record = PrecisionRecord(Precision.INT8, Precision.FP16, ("/stem/Conv",), ("/head/Softmax",))
    assert PrecisionRecord.from_json(record.to_json()) == record


def test_hardware_is_written_where_it_is_not_the_usual_one():
    usual = PrecisionRecord(Precision.INT8, Precision.FP32, ("/stem/Conv",))
    assert "hardware" not in usual.to_json(), "files of older versions are the same to the byte"
    cpu = PrecisionRecord(Precision.INT8, Precision.FP32, ("/stem/Conv",), hardware=Hardware.CPU)
    assert PrecisionRecord.from_json(cpu.to_json()) == cpu


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
