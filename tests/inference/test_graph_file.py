"""Graphs in reduced precision."""

import json

import pytest

from tests.exporting import (
    export_with,
)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float16", "int8"])
def test_reduced_precision_holds_the_encoder_in_it(trained_folds, exported, precision):
    import onnx

    path, result = export_with(
        trained_folds, trained_folds.fold_dir(1), "--precision", precision, "--limit", "0.5"
    )
    assert path.name == f"Exp_5_fold_1_{precision}.onnx"
    assert 0 < result.difference < (0.05 if precision == "float16" else 0.5)
    kind = {"float16": onnx.TensorProto.FLOAT16, "int8": onnx.TensorProto.INT8}[precision]
    program = onnx.load(path)
    reduced = [
        one.name
        for one in program.graph.initializer
        if one.data_type == kind and len(one.dims) == 4
    ]
    assert len(reduced) >= 5 and all(".encoder." in name for name in reduced)
    about = {entry.key: entry.value for entry in program.metadata_props}
    assert about["precision"] == precision and json.loads(about["folds"])[0]["fold"] == 1
