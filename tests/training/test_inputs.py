"""A run is known by what it read, not by where that lies."""

import dataclasses
import json
import re
import shutil
import time
import zipfile

import numpy as np
import pytest
from PIL import Image

import t2i_kd
from t2i_kd import api, systems
from t2i_kd.data.catalogue import load_dataset
from t2i_kd.errors import UserError
from t2i_kd.options import DataOptions, StudentOptions, TeacherOptions, TextOptions, TrainingOptions
from t2i_kd.sdn import SDNOptions, SDNRecipe, SDNStage
from t2i_kd.student import load_student
from t2i_kd.training.inputs import captions_digest, data_differences, example_digests, file_digest
from t2i_kd.training.text_to_image import SIDES
from tests.commands import files

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "white": (255, 255, 255)}


def rows(folder):
    return [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]


def write_rows(folder, lines):
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))


def write_data(folder):
    """Writes eight pictures of four colours, the last four held out."""
    folder.mkdir()
    lines = []
    for index in range(8):
        name = list(COLOURS)[index % 4]
        Image.new("RGB", (32, 32), COLOURS[name]).save(folder / f"{index}.png")
        split = "test" if index > 3 else "train"
        lines.append({"file_name": f"{index}.png", "caption": f"a {name} square", "split": split})
    write_rows(folder, lines)
    return folder


@pytest.fixture
def data(tmp_path):
    return write_data(tmp_path / "data")


def recipe(folder, steps=2, **student):
    return SDNRecipe(
        data=DataOptions(dataset="image_folder", data_dir=str(folder)),
        text=TextOptions(text_dim=8, word_dim=4, text_length=4),
        teacher=TeacherOptions(teacher="none"),
        student=StudentOptions(**student),
        sdn=SDNOptions(width=1 / 32),
        training=TrainingOptions(batch_size=4),
        stages=(SDNStage("one", "mirrored", steps=steps, tap_weights=(("image", 1.0),)),),
    )


def digests(folder):
    return example_digests([load_dataset("image_folder", "train", 8, str(folder))])


def everything(folder):
    return {name: (folder / name).read_bytes() for name in files(folder)}


def test_a_folder_elsewhere_and_a_zip_of_it_are_the_same_examples(data, tmp_path):
    shutil.copytree(data, tmp_path / "moved")
    with zipfile.ZipFile(tmp_path / "packed.zip", "w") as archive:
        for path in data.iterdir():
            archive.write(path, f"inside/{path.name}")
    found = digests(data)
    assert list(found) == ["0.png", "1.png", "2.png", "3.png"] and len(set(found.values())) == 4
    assert found == digests(tmp_path / "moved") == digests(tmp_path / "packed.zip")


def changed_caption(folder):
    write_rows(folder, [line | {"caption": line["caption"].replace("blue", "white")} for line in rows(folder)])


def changed_picture(folder):
    Image.new("RGB", (32, 32), (0, 0, 254)).save(folder / "2.png")


def changed_class(folder):
    write_rows(folder, [line | {"class_name": "b" if line["file_name"] == "2.png" else "a"} for line in rows(folder)])


@pytest.mark.parametrize("change", [changed_caption, changed_picture])
def test_a_change_names_the_example(data, change):
    before = digests(data)
    change(data)
    assert data_differences(before, digests(data)) == "1 changed (the first: 2.png)"


def test_classes_are_part_of_an_example(data):
    before = digests(data)
    changed_class(data)
    assert "4 changed" in data_differences(before, digests(data))


def test_held_out_examples_count_by_their_captions(data):
    load = lambda: captions_digest([load_dataset("image_folder", "test", 8, str(data), decode=False)])  # noqa: E731
    before = load()
    changed_picture(data)
    assert load() == before
    changed_caption(data)
    assert load() != before


def test_pixels_stand_in_where_there_is_no_file(data):
    first = load_dataset("captioned_shapes", "test", 8)
    other = dataclasses.replace(
        first, images=np.where(np.arange(len(first))[:, None, None, None] == 7, 0, first.images)
    )
    assert data_differences(example_digests([first]), example_digests([other])) == "1 changed (the first: 7)"


def test_a_folders_digest_is_of_its_names_and_contents(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name / "inner").mkdir(parents=True)
        (tmp_path / name / "inner" / "file").write_text("content")
    assert file_digest(tmp_path / "a") == file_digest(tmp_path / "b")
    (tmp_path / "b" / "inner" / "file").rename(tmp_path / "b" / "inner" / "other")
    assert file_digest(tmp_path / "a") != file_digest(tmp_path / "b")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of two steps, and its data."""
    folder = tmp_path_factory.mktemp("trained")
    data = write_data(folder / "data")
    t2i_kd.train(recipe(data), folder / "run")
    return data, folder / "run"


def test_a_run_belongs_to_the_content_of_its_data(trained, tmp_path):
    data, run_dir = (shutil.copytree(each, tmp_path / each.name) for each in trained)
    before, lines = everything(run_dir), rows(data)
    changed_caption(data)
    with pytest.raises(UserError, match=r"--data_dir: .* other examples .* 1 changed \(the first: 2.png\)"):
        t2i_kd.train(recipe(data), run_dir)
    write_rows(data, [line | {"split": "test" if line["file_name"] == "0.png" else "train"} for line in lines])
    with pytest.raises(UserError, match=r"1 gone \(the first: 0.png\), 4 new \(the first: 4.png\)"):
        t2i_kd.train(recipe(data), run_dir)
    assert before == everything(run_dir)
    write_rows(data, lines)
    t2i_kd.train(recipe(data.rename(tmp_path / "moved"), steps=3), run_dir)
    assert (run_dir / "checkpoints/one/step-00000003.npz").exists()
    assert json.loads((run_dir / "metrics.jsonl").read_text().splitlines()[-1])["step"] == 3


def test_a_student_begins_with_a_finished_ones_weights_word_by_word(trained, tmp_path):
    data, run_dir = shutil.copytree(trained[0], tmp_path / "data"), trained[1]
    write_rows(data, [line | {"caption": line["caption"].replace("a blue", "one navy")} for line in rows(data)])
    system, student = systems.build(recipe(data, init_from=str(run_dir))), load_student(run_dir)
    new, old = (each.condition.front_end.tokenizer.vocabulary for each in (system, student))
    assert set(new) - set(old) == {"one", "navy"} and system.inputs().networks["init_from"]
    theirs = {weight.path: np.asarray(weight) for weight in student.network.weights}
    for weight in system.network.weights:
        if weight.path.endswith("words/embeddings"):
            kept = [(new.index(word) + 2, old.index(word) + 2) for word in new if word in old]
            ours, before = np.asarray(weight), theirs[weight.path]
            assert len(kept) == 5 and all(np.array_equal(ours[here], before[there]) for here, there in kept)
        else:
            np.testing.assert_array_equal(np.asarray(weight), theirs[weight.path])
    assert system.known_words == (5, 7)


def test_a_student_of_other_layers_is_refused(trained, tmp_path):
    data, run_dir = trained
    other = dataclasses.replace(recipe(data, init_from=str(run_dir)), sdn=SDNOptions(width=1 / 16))
    with pytest.raises(UserError, match=r"--init_from: fc7/kernel has shape .* and .* here"):
        t2i_kd.train(other, tmp_path / "other")
    for changed, told in (
        ({"sdn": dataclasses.replace(recipe(data).sdn, image_output="centred")}, "scales its images otherwise"),
        ({"sdn": dataclasses.replace(recipe(data).sdn, modulation=True)}, "its student has other layers"),
        (
            {"student": dataclasses.replace(recipe(data).student, init_from=str(run_dir), whiten_text=True)},
            "other layers",
        ),
        (
            {"text": dataclasses.replace(recipe(data).text, text_weights="x")},
            "--text_weights: the student of --init_from",
        ),
    ):
        with pytest.raises(UserError, match=told):
            t2i_kd.train(dataclasses.replace(recipe(data, init_from=str(run_dir)), **changed), tmp_path / "other")
    more = dataclasses.replace(recipe(data), student=dataclasses.replace(recipe(data).student, whiten_text=True))
    t2i_kd.train(more, tmp_path / "white")
    with pytest.raises(UserError, match=r"has text_whitening/bias, which this student has not"):
        t2i_kd.train(recipe(data, init_from=str(tmp_path / "white")), tmp_path / "other")
    with pytest.raises(UserError, match=r"--init_from: .* is neither a finished run"):
        t2i_kd.train(recipe(data, init_from=str(data)), tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_what_is_seldom_meant_is_counted_at_the_start_and_in_a_dry_run(data):
    """Cut captions, unknown words, mirrored pictures of captions that say a side, noise that does nothing."""
    said = {"0.png": "a red square on the Left", "1.png": "one two three four five six seven", "4.png": "a navy square"}
    write_rows(data, [line | {"caption": said.get(line["file_name"], line["caption"])} for line in rows(data)])
    plain = recipe(data, noise_dim=3)
    flipped = dataclasses.replace(plain, data=dataclasses.replace(plain.data, flip=True))
    system = systems.build(flipped)
    warnings = system.warnings()
    assert [line.partition(":")[0] for line in warnings] == [
        "--text_length",
        "2 of 4 captions of image_folder/test hold words that the student does not know, 2 in all",
        "--flip",
        "--noise_dim=3",
    ]
    assert "2 of 4 captions of image_folder/train are longer than 4 words" in warnings[0]
    assert "--flip: 1 of 4 captions say left or right" in warnings[2]
    start = system.describe_start()
    assert "image_folder/train: 4 images, 4 (image, caption) pairs" in start and "image_folder/test: 4 images" in start
    assert start.count("  split: the key split of the metadata") == 2
    assert [line for line in start if line.startswith("warning: ")] == [f"warning: {line}" for line in warnings]
    assert set(start) < set(api.describe(flipped))
    assert not any("--flip" in line for line in systems.build(plain).warnings())


@pytest.mark.parametrize(
    ("caption", "sided"),
    [
        ("a bird facing left", True),
        ("Right-hand door", True),
        ("the leftmost tree", True),
        ("ein Haus links", True),
        ("红色在左", True),
        ("bright leftovers", False),
        ("upright lefty", False),
    ],
)
def test_captions_that_say_a_side(caption, sided):
    assert bool(SIDES.search(caption)) == sided


def test_a_dry_run_measures_what_training_costs(data):
    """Files' sizes by the count of weights, and a speed from steps that the test makes slow."""
    system, waited = systems.build(recipe(data, steps=1000)), []
    batches = system.batches

    class Slow(type(batches(system.plans[0], 0, 1))):
        def __getitem__(self, index):
            waited.append(index)
            time.sleep(0.2)
            return super().__getitem__(index)

    def slow(plan, first, last):
        made = batches(plan, first, last)
        made.__class__ = Slow
        return made

    system.batches = slow
    files, stage = system.describe_cost()
    size = system.network.count_params() * 4 / 1e6
    assert files.startswith(f"files, about: student.keras and ONNX {size:.1f} MB, ")
    rate = float(
        re.fullmatch(r"stage one: (\S+) images a second here, (?:some .* minutes?|less than a minute) in all", stage)[1]
    )
    # Four images a step, of which none takes less than 0.2 seconds.
    assert 0.5 < rate <= 22 and len(waited) <= 8
