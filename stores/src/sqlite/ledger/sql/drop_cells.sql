DROP VIEW temp.dated_cells;
DROP TABLE temp.cells;
