"""One evaluation as one page: a file that opens in any browser and asks no server for anything."""
