import pytest

import fluvial as fv


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(ValueError, match="unknown data set 'digit': did you mean 'digits'"):
        fv.load_dataset("digit")


@pytest.mark.parametrize("spec", ["digits", "moons"])
def test_size_is_for_pictures_only(spec) -> None:
    forms = "folder:PATH, celeba:PATH and pictures in Parquet"
    with pytest.raises(ValueError, match=f"size=8 is for {forms}, the data set is '{spec}'"):
        fv.load_dataset(spec, size=8)


def test_arguments_out_of_range() -> None:
    with pytest.raises(ValueError, match="seed must be a non-negative integer, got -1"):
        fv.load_dataset("digits", seed=-1)
    with pytest.raises(ValueError, match="held_out=1797 leaves no training data: there are 1797 data"):
        fv.load_dataset("digits", held_out=1797)
    with pytest.raises(ValueError, match=r"held_out must be a share in \[0, 1\)"):
        fv.load_dataset("digits", held_out=1.0)


def test_what_cannot_be_read_is_one_error(tmp_path, monkeypatch) -> None:
    def denied(*_: object) -> None:
        raise PermissionError(13, "Permission denied", "a.png")

    monkeypatch.setattr("fluvial.data.load.read_folder", denied)
    with pytest.raises(ValueError, match=r"cannot be read: .*Permission denied: 'a\.png'"):
        fv.load_dataset(f"folder:{tmp_path}")
