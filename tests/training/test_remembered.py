"""Tensors that go back to what they were: the program says so, or a device finds it."""

import pytest
import torch

from training.remembered import Remembered


def some_tensors() -> list[torch.Tensor]:
    torch.manual_seed(0)
    grid = torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last)
    return [torch.rand(3), grid, torch.tensor(7), torch.rand(2).half(), torch.tensor([True, False])]


@pytest.mark.parametrize("spoil", ["nan", "other numbers"])
@pytest.mark.parametrize("is_bad", [True, False])
def test_a_device_puts_back_what_was_there_whatever_came_instead(is_bad, spoil):
    tensors = some_tensors()
    remembered = Remembered(tensors)
    before = [one.clone() for one in tensors]
    remembered.remember()
    for one in tensors:
        if one.is_floating_point():
            one.fill_(float("nan")) if spoil == "nan" else one.mul_(-3)
        else:
            one.zero_()
    after = [one.clone() for one in tensors]
    remembered.put_back_where(torch.tensor(float(is_bad)))
    expected = before if is_bad else after
    for one, wanted in zip(tensors, expected, strict=True):
        assert torch.equal(one.nan_to_num(9.0), wanted.nan_to_num(9.0))
        assert one.stride() == wanted.stride()


def test_it_can_be_asked_again_after_each_remember():
    one = torch.zeros(3)
    remembered = Remembered([one])
    for number in range(1, 4):
        remembered.remember()
        one += 1
        remembered.put_back_where(torch.tensor(float(number == 2)))
    assert one.tolist() == [2, 2, 2]
    remembered.remember()
    one += 1
    remembered.put_back()
    assert one.tolist() == [2, 2, 2]
