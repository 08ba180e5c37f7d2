"""The ranks of what stands in for volumes of decoders: they are correlations, and reproducible."""

from benchmarks.decoder_ranks import main, ranks


def test_ranks_are_correlations_of_every_contender_at_both_places():
    found = ranks(seed=0, epochs=1, num_train=130)
    assert len(found) == 6
    assert {name.rsplit(", ", 1)[1] for name in found} == {"codes", "prior"}
    assert all(-1 <= value <= 1 for value in found.values())
    assert ranks(seed=0, epochs=1, num_train=130) == found


def test_command_prints_a_line_for_each(capsys):
    main(["--seeds", "0", "1", "--epochs", "1", "--train", "130"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6
    assert all(" ± " in line for line in lines)
