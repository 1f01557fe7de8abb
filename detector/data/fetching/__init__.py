"""Public data sets, fetched from where they are published into the layout that the configurations expect."""
