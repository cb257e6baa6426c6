"""The node: a streaming runtime that receives radiographs, screens them and delivers the results (DESIGN 7)."""
