"""Whatever a row says, its interval holds it."""


def test_every_interval_holds_its_figure(oracle):
    checked = 0
    for group, rows in oracle.groups.items():
        for row in rows:
            for name in (key.removesuffix("_low") for key in row if key.endswith("_low")):
                low, high = row[f"{name}_low"], row[f"{name}_high"]
                if name in row and low is not None:
                    assert low <= row[name] <= high, (group, name, row)
                    checked += 1
    assert checked > 100
