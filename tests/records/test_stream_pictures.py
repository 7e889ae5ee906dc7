"""The matrix of a stream as CSV and as a picture."""

from __future__ import annotations

import math

import numpy as np

from metarun.records.stream_pictures import matrix_csv, matrix_figure

NAN = math.nan


def test_the_csv_has_a_line_for_each_row_and_nothing_where_a_class_has_not_come():
    assert matrix_csv([[1.0, NAN], [0.25, 0.5]], [1, 2]).splitlines() == ["after,1,2", "1,1,", "2,0.25,0.5"]


def test_the_picture_shows_percents_class_by_class():
    figure = matrix_figure([[1.0, NAN], [0.25, 0.5]], [1, 2], metric="accuracy", part="class", title="test")
    axes, bar = figure.axes
    mesh = axes.collections[0]
    assert np.ma.filled(mesh.get_array(), -1.0).tolist() == [[100.0, -1.0], [25.0, 50.0]]
    assert mesh.get_clim() == (0.0, 100.0)
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_title(), bar.get_ylabel()) == ("on class", "after class", "test", "accuracy (%)")
    assert axes.get_ylim() == (2.5, 0.5)


def test_rows_at_some_lengths_are_bands_of_equal_height_with_their_numbers():
    figure = matrix_figure([[1.0, NAN, NAN], [0.2, 0.3, 0.4]], [1, 3], metric="accuracy", part="class")
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["1", "3"]


def test_errors_are_drawn_in_their_own_unit_and_an_infinite_one_does_no_harm():
    figure = matrix_figure([[2.0, NAN], [math.inf, 4.0]], [1, 2], metric="mse", part="function")
    assert figure.axes[0].collections[0].get_clim() == (0.0, 4.0)
    assert figure.axes[1].get_ylabel() == "MSE"
