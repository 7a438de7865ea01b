"""TF Serving's JSON: requests by row or by column, answers in the same form, binary values as {"b64": ...}."""

import base64
import binascii
import json

from t2i_kd.serving.errors import invalid
from t2i_kd.serving.signature import DEFAULT_SIGNATURE


def parse(body):
    """A request's body; what else it holds than TF Serving reads is left alone, as there.

    Returns:
        (form, content, signature's name): the form is "instances" (rows) or "inputs" (columns), the content what stood
        there.

    Raises:
        RequestError: when it is not UTF-8, not JSON, or has not one of `instances` and `inputs`.
    """
    try:
        request = json.loads(body.decode("utf-8"), parse_constant=_refuse_constant)
    except UnicodeDecodeError:
        raise invalid("JSON Parse error: the body is not UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise invalid(f"JSON Parse error: {str(error)[:200]}") from None
    if not isinstance(request, dict):
        raise invalid("JSON Parse error: the body is not an object")
    if ("instances" in request) == ("inputs" in request):
        raise invalid("JSON Value: give one of 'instances' (rows) and 'inputs' (columns)")
    signature = request.get("signature_name", DEFAULT_SIGNATURE)
    if not isinstance(signature, str):
        raise invalid("'signature_name' is not a string")
    form = "instances" if "instances" in request else "inputs"
    return form, request[form], signature


def read_inputs(form, content, names, check_rows):
    """The values of a parsed request.

    Args:
        form, content: from `parse`.
        names: the signature's inputs.
        check_rows: called with the number of rows before they are looked at; raises `RequestError`.

    Returns:
        {name: list of bytes, int, or whatever else stood there}.

    Raises:
        RequestError: when it has not TF Serving's form, or an input named `..._bytes` is given as plain text.
    """
    read = _read_rows if form == "instances" else _read_columns
    return read(content, list(names), check_rows)


def write_outputs(form, outputs):
    """The answer's bytes.

    Args:
        form: from `parse`; says whether rows or columns are wanted.
        outputs: {name: array [n, ...]}.
    """
    columns = {name: _to_json(name, values) for name, values in outputs.items()}
    single = next(iter(columns.values())) if len(columns) == 1 else None
    if form == "inputs":
        answer = {"outputs": columns if single is None else single}
    elif single is None:
        rows = zip(*columns.values(), strict=True)
        answer = {"predictions": [dict(zip(columns, row, strict=True)) for row in rows]}
    else:
        answer = {"predictions": single}
    return json.dumps(answer, separators=(",", ":")).encode()


def _read_rows(instances, names, check_rows):
    if not isinstance(instances, list):
        raise invalid("'instances' is not a list")
    check_rows(len(instances))
    plain = [not isinstance(row, dict) or _is_binary(row) for row in instances]
    if all(plain):
        if len(names) != 1:
            raise invalid(f"each instance must be an object with {', '.join(names)}")
        return {names[0]: _values(names[0], instances)}
    if any(plain):
        raise invalid("'instances' mixes plain values and objects")
    keys = instances[0].keys()
    for number, row in enumerate(instances):
        if row.keys() != keys:
            raise invalid(f"instance {number} has other keys than instance 0")
    return {key: _values(key, [row[key] for row in instances]) for key in keys}


def _read_columns(inputs, names, check_rows):
    if not isinstance(inputs, dict):
        if len(names) != 1:
            raise invalid(f"'inputs' must be an object with {', '.join(names)}")
        inputs = {names[0]: inputs}
    columns = {}
    for name, values in inputs.items():
        if not isinstance(values, list):
            raise invalid(f"input {name[:100]!r} is not a list: its shape is [batch]")
        check_rows(len(values))
        columns[name] = _values(name, values)
    return columns


def _is_binary(value):
    return isinstance(value, dict) and value.keys() == {"b64"}


def _values(name, values):
    if name.endswith("_bytes"):
        for row, value in enumerate(values):
            if isinstance(value, str):
                example = '{"b64": "..."}'
                raise invalid(f"input {name[:100]!r}, row {row}: text, but it takes bytes: give {example} with base64")
    return [_value(value) for value in values]


def _value(value):
    if isinstance(value, str):
        # A lone surrogate, which JSON can spell and UTF-8 cannot, becomes bytes that are refused as not UTF-8.
        return value.encode("utf-8", "surrogatepass")
    if not _is_binary(value):
        return value
    try:
        return base64.b64decode(value["b64"], validate=True)
    except (binascii.Error, TypeError, ValueError):
        raise invalid("'b64' does not hold base64") from None


def _to_json(name, values):
    if values.dtype != object:
        return values.tolist()
    if name.endswith("_bytes"):
        return [{"b64": base64.b64encode(value).decode()} for value in values]
    return [value.decode("utf-8", "replace") for value in values]


def _refuse_constant(name):
    raise ValueError(f"{name} is not JSON")
