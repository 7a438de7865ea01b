"""Runs of SRPKD on two devices lose what those of one do, with the pool that each device keeps alike."""

import pytest

from tests.commands import Fork, finish, metrics
from tests.systems import write_pairs

RUN = (
    "--system=srpkd",
    "--dataset=paired_folder",
    "--resolution=16",
    "--batch_size=4",
    "--generator_channels=4",
    "--generator_depth=1",
    "--log_every=1",
)
TEACHER = ("--teacher={folder}/teacher.npz", "--output_weight=10", "--relation_weight=3")
STAGES = {
    "distil": (*TEACHER, "--stage=one: objective=distil steps=3"),
    "cycle": (
        "--discriminator_channels=4",
        "--discriminator_layers=2",
        "--pool_size=6",
        "--stage=one: objective=cycle_gan steps=4",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", STAGES)
def test_two_devices_lose_what_one_does(name, tmp_path):
    write_pairs(tmp_path)
    stage = [each.replace("{folder}", str(tmp_path)) for each in STAGES[name]]
    found = []
    for devices, distribute in ((1, "none"), (2, "mirrored")):
        run_dir = tmp_path / distribute
        arguments = [*RUN, *stage, f"--data_dir={tmp_path}", f"--run_dir={run_dir}"]
        finish(Fork(*arguments, f"--distribute={distribute}", devices=devices))
        found.append([line["loss"] for line in metrics(run_dir)])
    assert found[1] == pytest.approx(found[0], rel=1e-4) and len(set(found[0])) > 2
