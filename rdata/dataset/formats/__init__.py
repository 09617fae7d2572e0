"""How are files of each format found, split and read?"""
