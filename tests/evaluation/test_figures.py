"""Figures say how many cases they show."""

import pandas as pd

from tumorreg_wf.evaluation import figures


def test_cases_that_lack_some_images_are_counted(tmp_path, monkeypatch):
    shown = []
    save = figures.Figure.savefig

    def look(figure, path, **how):
        shown.extend(label.get_text() for label in figure.axes[0].get_xticklabels())
        save(figure, path, **how)

    monkeypatch.setattr(figures.Figure, 'savefig', look)
    rows = [('a', 'T1w+FLAIR'), ('a', 'T1w'), ('a', 'T1w+FLAIR'), ('a', 'T1w'), ('b', 'T1w')]
    table = pd.DataFrame(rows, columns=['group', 'modalities']).assign(dice=0.9)
    figures.draw_distribution(table, 'dice', 'Dice', 'group', 'modalities', tmp_path / 'x.png')
    assert shown == ['a\nn = 2', 'b\nn = 1']
